/* The configuration files. The first byte says which. */
#include "model/config.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    vd_config config;
    vd_error err;
    if (size == 0)
        return 0;
    const char *json = (const char *)data + 1;
    switch (data[0] % 4) {
    case 0:
        vd_config_parse_unet(json, size - 1, "fuzz", &config.unet, &err);
        break;
    case 1:
        vd_config_parse_vae(json, size - 1, "fuzz", &config.vae, &err);
        break;
    case 2:
        vd_config_parse_clip(json, size - 1, "fuzz", &config.clip, &err);
        break;
    default:
        vd_config_parse_scheduler(json, size - 1, "fuzz", &config.scheduler, &err);
    }
    return 0;
}
