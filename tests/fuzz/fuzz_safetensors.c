/* The header of a weight file. The first two bytes say how far the pretended file reaches beyond the rest. */
#include "model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    vd_error err;
    if (size < 2)
        return 0;
    uint64_t beyond = data[0] | (uint64_t)data[1] << 8;
    vd_safetensors_check_header((const char *)data + 2, size - 2, size - 2 + beyond, "fuzz", &err);
    return 0;
}
