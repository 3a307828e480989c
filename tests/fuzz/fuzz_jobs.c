/* A job file, from its text to the names of its samples. */
#include "app/batch.h"

enum { MOST = 100 }; /* more samples only take longer */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    vd_options options = {.request = {.job = {.image = "photos/fox.png"}, .samples = 1}};
    vd_batch batch = {0};
    vd_error err;
    if (vd_batch_parse_jobs(&batch, &options.request, (const char *)data, size, "fuzz", &err) == VD_OK &&
        vd_batch_make_samples(&batch, 1, &err) == VD_OK && batch.sample_count <= MOST)
        vd_batch_name_samples(&batch, &options, 7, &err);
    vd_batch_free(&batch);
    return 0;
}
