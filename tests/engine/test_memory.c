/* The memory that is printed before a run is the memory that it takes: peak resident size of a fresh
 * process within 10 % of the plan, for one device and for several, with weights that matter. This program
 * with arguments MODEL MODE DEVICES SAMPLES DTYPE is such a process. */
#include "engine/studio.h"

#include <math.h>
#include <unistd.h>

static const char large_unet[] =
    "{\"_class_name\": \"UNetSpatioTemporalConditionModel\", \"block_out_channels\": [128, 192, 256],"
    " \"down_block_types\": [\"CrossAttnDownBlockSpatioTemporal\", \"CrossAttnDownBlockSpatioTemporal\","
    " \"DownBlockSpatioTemporal\"], \"up_block_types\": [\"UpBlockSpatioTemporal\","
    " \"CrossAttnUpBlockSpatioTemporal\", \"CrossAttnUpBlockSpatioTemporal\"],"
    " \"num_attention_heads\": [2, 3, 4], \"cross_attention_dim\": 32, \"layers_per_block\": 1,"
    " \"addition_time_embed_dim\": 32, \"projection_class_embeddings_input_dim\": 96,"
    " \"in_channels\": 8, \"out_channels\": 4, \"num_frames\": 4}";

/* Peak resident bytes of this process. */
static size_t peak_resident(void) {
    char line[256];
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/self/status", "re");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %llu", &kib) == 1)
            break;
    fclose(f);
    return (size_t)kib * 1024;
}

static int run_here(char **argv) {
    studio s = {0};
    snprintf(s.model.path, sizeof s.model.path, "%s", argv[1]);
    take t = studio_run(&s, (scene){.mode = argv[2],
                                    .devices = atoi(argv[3]),
                                    .samples = atoi(argv[4]),
                                    .dtype = argv[5],
                                    .width = 64,
                                    .height = 32,
                                    .frames = 4,
                                    .steps = 2,
                                    .chunk = 2,
                                    .image = "samples/images/ball.png"});
    if (t.code)
        fprintf(stderr, "%s\n", t.error.message);
    else
        printf("%llu %llu %zu\n", (unsigned long long)t.report->planned_bytes,
               (unsigned long long)t.report->weight_bytes, peak_resident());
    take_free(&t);
    return t.code;
}

static void check_memory(const studio *s, const char *mode, int devices, int samples, const char *dtype) {
    char self[256], command[512];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(length > 0);
    self[length] = 0;
    snprintf(command, sizeof command, "'%s' %s %s %d %d %s", self, s->model.path, mode, devices, samples,
             dtype);
    FILE *child = popen(command, "re");
    assert_non_null(child);
    unsigned long long planned = 0, weights = 0, peak = 0;
    int fields = fscanf(child, "%llu %llu %llu", &planned, &weights, &peak);
    assert_int_equal(pclose(child), 0);
    assert_int_equal(fields, 3);
    print_message("%s, %d devices, %s: planned %.1f MB, weights %.1f MB, peak resident %.1f MB (%+.1f %%)\n",
                  mode, devices, dtype, 1e-6 * (double)planned, 1e-6 * (double)weights, 1e-6 * (double)peak,
                  100 * ((double)peak / (double)planned - 1));
    assert_true(fabs((double)peak / (double)planned - 1) <= 0.10);
}

static void test_peak(void **state) {
    studio s;
    (void)state;
    studio_model(&s, large_unet, VD_ST_BF16);
    check_memory(&s, "data", 1, 2, "fp32");
    check_memory(&s, "pipeline", 3, 3, "fp32");
    check_memory(&s, "wrap", 2, 3, "bf16");
    studio_close(&s);
}

int main(int argc, char **argv) {
    if (argc == 6)
        return run_here(argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_peak)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
