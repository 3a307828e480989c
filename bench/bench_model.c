/* Writes a model with random fp16 weights (model/dummy.h).
 *
 *     bench_model CONFIGS FOLDER
 *
 * CONFIGS is a folder of configuration files, such as tests/golden/configs/full: Stable Video Diffusion's. */
#include "model/dummy.h"

#include <stdio.h>

int main(int argc, char **argv) {
    vd_error err;
    if (argc != 3) {
        fprintf(stderr, "usage: bench_model CONFIGS FOLDER\n");
        return VD_ERR_USAGE;
    }
    vd_code code = vd_dummy_write(argv[1], argv[2], 1, VD_ST_F16, &err);
    if (code != VD_OK)
        fprintf(stderr, "bench_model: %s\n", err.message);
    return code;
}
