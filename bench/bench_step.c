/* One network of a model folder on one device: a GPU, or a virtual CPU device with one thread, beside the
 * machine's peak.
 *
 *     bench_step MODEL step|step1|decode|clip fp32|fp16|bf16 FRAMES LATENT_H LATENT_W [RUNS] [cpu|cuda]
 *
 * step: one denoising step with guidance; step1: without. decode: all FRAMES at once. clip: the image tower.
 * Runs it once to warm up, then RUNS times (5); prints JSON: seconds of each run on the clock, and of the
 * process's CPU, which other load disturbs less. */
#include "base/rng.h"
#include "device/backend.h"
#include "model/networks.h"

#include "fma_peak.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_RUNS = 100, MAX_EXTERNALS = 16 };

typedef struct bench {
    vd_backend *backend;
    vd_device *device;
    vd_stream *stream;
    vd_compiled *compiled;
    vd_exec *exec;
    void *arena;
    vd_binding bindings[MAX_EXTERNALS];
    int binding_count;
} bench;

static vd_error error;

/* An exit is all that a benchmark can do about a failure. */
static void must(vd_code code) {
    if (code == VD_OK)
        return;
    fprintf(stderr, "bench_step: %s\n", error.message);
    exit(code);
}

static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Normal values, so that no arithmetic meets zeros only; decreasing sigmas; the step counter starts at 0. So
 * does the network's input in 16 bits, until the step that warms up leaves the next one's there. */
static void fill(const vd_value_info *v, void *memory) {
    size_t count = (size_t)vd_shape_count(v->shape);
    vd_rng rng;
    memset(memory, 0, count * vd_dtype_bytes(v->dtype));
    if (v->dtype != VD_F32)
        return;
    vd_rng_seed(&rng, 1);
    vd_rng_normal_f32(&rng, memory, count);
    for (size_t i = 0; !strcmp(v->name, "sigmas") && i < count; i++)
        ((float *)memory)[i] = 10 * powf(0.9f, (float)i);
}

static void drain(bench *b) {
    must(b->device->table->stream_drain(b->stream, &error));
}

/* Device memory with the values of an external. */
static void *filled(bench *b, const vd_value_info *v) {
    const vd_device_table *table = b->device->table;
    size_t bytes = (size_t)vd_shape_count(v->shape) * vd_dtype_bytes(v->dtype);
    void *memory, *host = malloc(bytes);
    if (!host)
        must(vd_fail_memory(&error, v->name, bytes));
    fill(v, host);
    must(table->allocate(b->device, bytes, &memory, &error));
    must(table->copy(b->stream, VD_TO_DEVICE, memory, host, bytes, NULL, &error));
    drain(b);
    free(host);
    return memory;
}

static void bind(bench *b, const vd_program *p) {
    for (vd_value v = 0; v < p->value_count; v++) {
        const vd_value_info *value = &p->values[v];
        if (value->storage != VD_STORAGE_EXTERNAL)
            continue;
        if (b->binding_count == MAX_EXTERNALS)
            exit(VD_ERR_INTERNAL);
        b->bindings[b->binding_count++] = (vd_binding){v, filled(b, value)};
    }
}

static void bench_open(bench *b, const vd_program *p, bool cuda) {
    vd_cuda_request request = {0};
    must(cuda ? vd_cuda_backend_open(&request, &b->backend, &error)
              : vd_cpu_backend_open(NULL, &b->backend, &error));
    must(b->backend->table->open(b->backend, &(int){0}, 1, &b->device, &error));
    const vd_device_table *table = b->device->table;
    must(table->stream_open(b->device, "bench", &b->stream, &error));
    must(table->compile(b->device, p, &b->compiled, &error));
    must(table->load(b->device, b->compiled, &error));
    must(table->allocate(b->device, vd_compiled_arena(b->compiled), &b->arena, &error));
    bind(b, p);
    must(table->exec_open(b->device, b->compiled, b->arena, b->bindings, b->binding_count, &b->exec, &error));
}

static void bench_close(bench *b) {
    const vd_device_table *table = b->device->table;
    table->exec_close(b->device, b->exec);
    for (int i = 0; i < b->binding_count; i++)
        table->release(b->device, b->bindings[i].memory);
    table->release(b->device, b->arena);
    table->compiled_close(b->device, b->compiled);
    table->stream_close(b->stream);
    table->close(b->device);
    b->backend->table->close(b->backend);
}

static void run(bench *b) {
    vd_fault fault;
    vd_fault_clear(&fault);
    must(b->device->table->launch(b->stream, b->exec, &fault, &error));
    drain(b);
    if (vd_fault_failed(&fault)) {
        error = fault.error;
        must(VD_ERR_INTERNAL);
    }
}

static void print_list(const char *name, const double *values, int count) {
    printf("\"%s\": [", name);
    for (int i = 0; i < count; i++)
        printf("%s%.6f", i ? ", " : "", values[i]);
    printf("], ");
}

static void measure(bench *b, int runs) {
    double wall[MAX_RUNS], cpu[MAX_RUNS];
    vd_backend_memory memory = b->backend->table->memory(b->backend);
    vd_fma_peak peak = {0};
    run(b);
    for (int i = 0; i < runs; i++) {
        vd_fma_peak_measure(&peak);
        double begin = vd_now(), cpu_begin = cpu_seconds();
        run(b);
        wall[i] = vd_now() - begin;
        cpu[i] = cpu_seconds() - cpu_begin;
    }
    printf("{");
    print_list("wall_s", wall, runs);
    print_list("cpu_s", cpu, runs);
    printf("\"arena_bytes\": %zu, \"weight_bytes\": %zu, \"peak_gflops\": %.1f, \"sink\": %g}\n",
           vd_compiled_arena(b->compiled), memory.shared_weights + memory.device_weights, peak.best * 1e-9,
           (double)peak.sink);
}

static vd_program *build(vd_model *model, const char *network, vd_dtype dtype, vd_video_shape shape) {
    vd_program *program = NULL;
    if (strcmp(network, "decode") == 0)
        must(vd_build_decoder(model, dtype, shape.frames, shape.latent_h, shape.latent_w, &program, &error));
    else if (strcmp(network, "clip") == 0)
        must(vd_build_clip(model, dtype, &program, &error));
    else
        must(vd_build_step(model, dtype, shape, false, &program, &error));
    return program;
}

int main(int argc, char **argv) {
    int runs = argc > 7 ? atoi(argv[7]) : 5;
    if (argc < 7 || runs < 1 || runs > MAX_RUNS) {
        fprintf(stderr,
                "usage: bench_step MODEL step|step1|decode|clip fp32|fp16|bf16 FRAMES LATENT_H LATENT_W "
                "[RUNS] [cpu|cuda]\n");
        return VD_ERR_USAGE;
    }
    vd_dtype dtype = !strcmp(argv[3], "bf16") ? VD_BF16 : !strcmp(argv[3], "fp16") ? VD_F16 : VD_F32;
    vd_video_shape shape = {atoi(argv[4]), atoi(argv[5]), atoi(argv[6]), MAX_RUNS + 1,
                            strcmp(argv[2], "step1") != 0};
    vd_model *model;
    bench b = {0};
    must(vd_model_open(argv[1], NULL, &model, &error));
    vd_program *program = build(model, argv[2], dtype, shape);
    bench_open(&b, program, argc > 8 && strcmp(argv[8], "cuda") == 0);
    measure(&b, runs);
    bench_close(&b);
    vd_program_free(program);
    vd_model_close(model);
    return VD_OK;
}
