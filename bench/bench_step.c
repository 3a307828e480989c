/* One network of a model folder on one device: a GPU, or a virtual CPU device with one thread, beside the
 * machine's peak.
 *
 *     bench_step MODEL NETWORK fp32|fp16|bf16 FRAMES LATENT_H LATENT_W [RUNS] [cpu|cuda]
 *
 * NETWORK as in rig.h; a step is one denoising step. Runs it once to warm up, then RUNS times (5); prints
 * JSON: seconds of each run on the clock, and of the process's CPU, which other load disturbs less. */
#include "fma_peak.h"
#include "rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_RUNS = 100 };

static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void print_list(const char *name, const double *values, int count) {
    printf("\"%s\": [", name);
    for (int i = 0; i < count; i++)
        printf("%s%.6f", i ? ", " : "", values[i]);
    printf("], ");
}

static void measure(loaded *l, int runs) {
    double wall[MAX_RUNS], cpu[MAX_RUNS];
    const vd_backend *backend = l->rig->backend;
    vd_backend_memory memory = backend->table->memory(backend);
    vd_fma_peak peak = {0};
    loaded_run(l);
    for (int i = 0; i < runs; i++) {
        vd_fma_peak_measure(&peak);
        double cpu_begin = cpu_seconds();
        wall[i] = loaded_run(l);
        cpu[i] = cpu_seconds() - cpu_begin;
    }
    printf("{");
    print_list("wall_s", wall, runs);
    print_list("cpu_s", cpu, runs);
    printf("\"arena_bytes\": %zu, \"weight_bytes\": %zu, \"peak_gflops\": %.1f, \"sink\": %g}\n",
           vd_compiled_arena(l->compiled), memory.shared_weights + memory.device_weights, peak.best * 1e-9,
           (double)peak.sink);
}

int main(int argc, char **argv) {
    int runs = argc > 7 ? atoi(argv[7]) : 5;
    if (argc < 7 || runs < 1 || runs > MAX_RUNS) {
        fprintf(stderr, "usage: bench_step MODEL NETWORK fp32|fp16|bf16 FRAMES LATENT_H LATENT_W [RUNS] "
                        "[cpu|cuda]\n");
        return VD_ERR_USAGE;
    }
    vd_video_shape shape = {
        .frames = atoi(argv[4]), .latent_h = atoi(argv[5]), .latent_w = atoi(argv[6]), .steps = MAX_RUNS + 1};
    vd_model *model;
    rig r;
    loaded l;
    MUST(vd_model_open(argv[1], NULL, &model, err));
    vd_program *program = rig_network(model, argv[2], rig_dtype(argv[3]), shape, false);
    rig_open(&r, argc > 8 && strcmp(argv[8], "cuda") == 0, 1);
    loaded_open(&l, &r, program);
    measure(&l, runs);
    loaded_close(&l);
    rig_close(&r);
    vd_program_free(program);
    vd_model_close(model);
    return VD_OK;
}
