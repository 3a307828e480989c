#include "device/cuda_tune.h"

#include "base/layout.h"
#include "device/cuda.h"

#include <string.h>
#include <time.h>

enum { BATCHES = 3, MAX_RUNS = 50 };
static const double BATCH_SECONDS = 2e-3; /* launches of short kernels are timed together */
static const double FAR_BEHIND = 3;       /* more than what a single run's time can be off by */

/* One problem's operands on the device. */
typedef struct bench {
    const vd_cuda_tuner *tuner;
    vd_cuda_trial_data data;
    cudaStream_t stream;
    char *memory; /* operands, y and workspace behind each other */
    vd_cuda_operands operands;
    const void *z; /* as it was drawn, NULL: none; operands.z is y */
    void *workspace;
    void *pinned; /* on the host, large enough for any operand and y */
} bench;

#define CHECK(b, call) VD_TRY(vd_cuda_check(call, (b)->tuner->device, #call, err))

static void *place(bench *b, size_t bytes, size_t *used) {
    void *at = b->memory + *used;
    *used += vd_align_up(bytes);
    return at;
}

static vd_code copy(bench *b, void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                    vd_error *err) {
    CHECK(b, cudaMemcpyAsync(to, from, bytes, kind, b->stream));
    CHECK(b, cudaStreamSynchronize(b->stream));
    return VD_OK;
}

static vd_code send(bench *b, int operand, void *to, vd_error *err) {
    size_t bytes = b->data.bytes[operand];
    memcpy(b->pinned, b->data.operands[operand], bytes);
    return copy(b, to, b->pinned, bytes, cudaMemcpyHostToDevice, err);
}

static vd_code place_operand(bench *b, int operand, size_t *used, const void **at, vd_error *err) {
    if (!b->data.bytes[operand])
        return VD_OK;
    void *to = place(b, b->data.bytes[operand], used);
    *at = to;
    return send(b, operand, to, err);
}

static size_t most_workspace(const vd_cuda_plans *plans) {
    size_t most = 0;
    for (int i = 0; i < plans->count; i++) {
        size_t bytes = vd_cuda_plan_workspace(plans->items[i]);
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* What the plans see as z is y, as in the programs: a plan that reads a value after it has written it is
 * found out. */
static vd_code fill_bench(bench *b, const vd_cuda_plans *plans, vd_error *err) {
    size_t total = vd_align_up(b->data.y_bytes) + most_workspace(plans), largest = b->data.y_bytes, used = 0;
    for (int i = 0; i < VD_CUDA_OPERANDS; i++) {
        total += vd_align_up(b->data.bytes[i]);
        largest = b->data.bytes[i] > largest ? b->data.bytes[i] : largest;
    }
    CHECK(b, cudaStreamCreateWithFlags(&b->stream, cudaStreamNonBlocking));
    CHECK(b, cudaHostAlloc(&b->pinned, largest, cudaHostAllocDefault));
    CHECK(b, cudaMalloc((void **)&b->memory, total));
    VD_TRY(place_operand(b, VD_CUDA_X, &used, &b->operands.x, err));
    VD_TRY(place_operand(b, VD_CUDA_WEIGHTS, &used, &b->operands.weights, err));
    VD_TRY(place_operand(b, VD_CUDA_BIAS, &used, &b->operands.bias, err));
    VD_TRY(place_operand(b, VD_CUDA_Z, &used, &b->z, err));
    b->operands.y = place(b, b->data.y_bytes, &used);
    b->operands.z = b->z ? b->operands.y : NULL;
    b->workspace = b->memory + used;
    return VD_OK;
}

/* Results of closing calls say nothing new: what failed before has been reported. cuDNN's handle outlives the
 * stream. */
static void close_bench(bench *b, const vd_cuda_math *m) {
    vd_cuda_trial_data_close(&b->data);
    if (m->dnn)
        (void)cudnnSetStream(m->dnn, NULL);
    if (b->pinned)
        (void)cudaFreeHost(b->pinned);
    if (b->memory)
        (void)cudaFree(b->memory);
    if (b->stream)
        (void)cudaStreamDestroy(b->stream);
}

/* ---- trials ---- */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Seconds for `runs` runs, from an idle device to an idle device. */
static vd_code time_runs(bench *b, const vd_cuda_plan *p, int runs, double *seconds, vd_error *err) {
    double start = now();
    for (int i = 0; i < runs; i++)
        VD_TRY(vd_cuda_plan_run(p, b->stream, &b->operands, b->workspace, err));
    CHECK(b, cudaStreamSynchronize(b->stream));
    *seconds = now() - start;
    return VD_OK;
}

/* z, or NaN: a plan that writes nothing shall not pass for the one before it. */
static vd_code prepare_result(bench *b, vd_error *err) {
    if (b->z)
        CHECK(b, cudaMemcpyAsync(b->operands.y, b->z, b->data.y_bytes, cudaMemcpyDeviceToDevice, b->stream));
    else
        CHECK(b, cudaMemsetAsync(b->operands.y, 0xff, b->data.y_bytes, b->stream));
    return VD_OK;
}

/* The first run warms up and is the one that is checked. */
static vd_code check_result(bench *b, const vd_cuda_plan *p, double *error, vd_error *err) {
    double seconds;
    VD_TRY(prepare_result(b, err));
    VD_TRY(time_runs(b, p, 1, &seconds, err));
    VD_TRY(copy(b, b->pinned, b->operands.y, b->data.y_bytes, cudaMemcpyDeviceToHost, err));
    *error = vd_cuda_trial_error(&b->data, b->pinned);
    return VD_OK;
}

/* `fastest`: of the plans before, 0 for none; one that is far behind it is timed once. */
static vd_code measure(bench *b, const vd_cuda_plan *p, double fastest, double *seconds, vd_error *err) {
    double once, batch;
    VD_TRY(time_runs(b, p, 1, &once, err));
    int runs = once * MAX_RUNS > BATCH_SECONDS ? (int)(BATCH_SECONDS / once) + 1 : MAX_RUNS;
    *seconds = once;
    if (fastest > 0 && once > FAR_BEHIND * fastest)
        return VD_OK;
    for (int i = 0; i < BATCHES; i++) {
        VD_TRY(time_runs(b, p, runs, &batch, err));
        *seconds = batch / runs < *seconds ? batch / runs : *seconds;
    }
    return VD_OK;
}

/* A plan that cannot run is passed over, unless it took the device with it. */
static vd_code try_plan(bench *b, const vd_cuda_plan *p, double tolerance, double fastest,
                        vd_cuda_trial *trial, vd_error *err) {
    vd_code status = check_result(b, p, &trial->error, err);
    trial->right = status == VD_OK && trial->error <= tolerance;
    if (trial->right)
        status = measure(b, p, fastest, &trial->seconds, err);
    trial->plan = vd_cuda_plan_name(p);
    if (status == VD_ERR_TRY_AGAIN)
        return status;
    trial->right = trial->right && status == VD_OK;
    b->tuner->tried(b->tuner->user, trial);
    return VD_OK;
}

static vd_code try_plans(bench *b, vd_cuda_math *m, const vd_cuda_plans *plans, const vd_cuda_plan **best,
                         vd_error *err) {
    char key[VD_CUDA_KEY_CAP];
    double tolerance = vd_cuda_trial_tolerance(b->data.problem, m->tf32), fastest = 0;
    vd_cuda_problem_key(b->data.problem, key);
    for (int i = 0; i < plans->count; i++) {
        vd_cuda_trial trial = {.problem = key};
        VD_TRY(try_plan(b, plans->items[i], tolerance, fastest, &trial, err));
        if (trial.right && (!*best || trial.seconds < fastest)) {
            *best = plans->items[i];
            fastest = trial.seconds;
        }
    }
    if (!*best)
        vd_log_line(m->log, VD_LOG_WARNING, "%s: none of %d plans is right", key, plans->count);
    return VD_OK;
}

vd_code vd_cuda_try(vd_cuda_math *m, const vd_cuda_problem *problem, const vd_cuda_plans *plans,
                    const vd_cuda_tuner *tuner, const vd_cuda_plan **best, vd_error *err) {
    bench b = {.tuner = tuner};
    *best = NULL;
    vd_code status = vd_cuda_trial_data_open(problem, &b.data, err);
    if (status == VD_OK)
        status = fill_bench(&b, plans, err);
    if (status == VD_OK)
        status = try_plans(&b, m, plans, best, err);
    close_bench(&b, m);
    return status;
}

vd_code vd_cuda_tune(vd_cuda_math *m, const vd_cuda_problem *problem, const vd_cuda_tuner *tuner,
                     vd_error *err) {
    vd_cuda_plans plans = {.limit = VD_CUDA_CANDIDATES};
    const vd_cuda_plan *best = NULL;
    vd_code status = vd_cuda_candidates(m, problem, &plans, err);
    if (status == VD_OK)
        status = vd_cuda_try(m, problem, &plans, tuner, &best, err);
    if (status == VD_OK && best)
        status = vd_cuda_choice_save(best, err);
    vd_cuda_plans_close(&plans);
    return status;
}

vd_code vd_cuda_tune_open(vd_cuda_math *m, const vd_cuda_tuner *tuner, vd_error *err) {
    for (const vd_cuda_plan *p = m->plans; p; p = p->next)
        if (!p->tuned)
            VD_TRY(vd_cuda_tune(m, &p->problem, tuner, err));
    return VD_OK;
}
