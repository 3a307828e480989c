/* The CUDA backend: which GPUs there are, opening several at once, and what they share. */
#include "device/cuda_device.h"
#include "device/cuda_module.h"

#include "base/thread.h"

#include <ctype.h>
#include <cudnn_graph.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Kernels that the driver loads when they are first captured: an estimate, on top of what opening took. */
enum { CONTEXT_BYTES = 256 << 20 };

static vd_cuda_backend *of(vd_backend *b) {
    return (vd_cuda_backend *)b;
}

/* ---- what there is ---- */

static int cuda_count(const vd_backend *b) {
    return ((const vd_cuda_backend *)b)->count;
}

static int node_of(const char *bus) {
    char path[96];
    int node = -1;
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/numa_node", bus);
    FILE *f = fopen(path, "re");
    if (!f)
        return -1;
    if (fscanf(f, "%9d", &node) != 1)
        node = -1;
    fclose(f);
    return node;
}

/* A context costs hundreds of megabytes: only where a device is open there is one to ask. */
static vd_code free_memory(vd_cuda_backend *b, int ordinal, size_t *bytes, vd_error *err) {
    size_t total;
    pthread_mutex_lock(&b->lock);
    vd_cuda_device *d = b->devices;
    while (d && d->ordinal != ordinal)
        d = d->next;
    vd_code code = d ? vd_cuda_enter(d, err) : VD_OK;
    if (d && code == VD_OK)
        code = VD_CUDA(d, cudaMemGetInfo(bytes, &total));
    pthread_mutex_unlock(&b->lock);
    return code;
}

static vd_code cuda_describe(const vd_backend *base, int ordinal, vd_device_info *out, vd_error *err) {
    struct cudaDeviceProp p;
    *out = (vd_device_info){.node = -1};
    snprintf(out->name, sizeof out->name, "cuda:%d", ordinal);
    VD_TRY(vd_cuda_check(cudaGetDeviceProperties(&p, ordinal), out->name, "cudaGetDeviceProperties", err));
    VD_TRY(vd_cuda_check(cudaDeviceGetPCIBusId(out->bus, sizeof out->bus, ordinal), out->name,
                         "cudaDeviceGetPCIBusId", err));
    for (char *c = out->bus; *c; c++)
        *c = (char)tolower((unsigned char)*c); /* as the kernel spells it */
    snprintf(out->model, sizeof out->model, "%.*s", (int)sizeof out->model - 1, p.name);
    out->node = node_of(out->bus);
    out->memory = p.totalGlobalMem;
    return free_memory((vd_cuda_backend *)base, ordinal, &out->free, err);
}

/* ---- opening devices ---- */

typedef struct opening {
    vd_cuda_backend *backend;
    vd_cuda_seat seat;
    vd_device *device;
    vd_thread thread;
    vd_code code;
    vd_error error;
} opening;

static void *open_one(void *argument) {
    opening *o = argument;
    o->code = vd_cuda_device_open(o->backend, &o->seat, &o->device, &o->error);
    return NULL;
}

static vd_code prepare(vd_cuda_backend *b, const int *ordinals, int count, opening *openings, vd_error *err) {
    for (int i = 0; i < count; i++) {
        if (ordinals[i] < 0 || ordinals[i] >= b->count)
            return vd_fail(err, VD_ERR_UNAVAILABLE, "device cuda:%d: there %s %d, numbered from cuda:0",
                           ordinals[i], b->count == 1 ? "is" : "are", b->count);
        openings[i] = (opening){.backend = b, .seat = {.ordinal = ordinals[i], .place = i, .places = count}};
        for (int k = 0; k < i; k++)
            openings[i].seat.twin += ordinals[k] == ordinals[i];
    }
    return VD_OK;
}

/* The first alone, for cuDNN loads its libraries with it; then all others at the same time. */
static void open_each(opening *openings, int count) {
    open_one(&openings[0]);
    for (int i = 1; i < count && openings[0].code == VD_OK; i++) {
        opening *o = &openings[i];
        vd_error error;
        vd_code code = vd_thread_start(&o->thread, "vd-open", VD_ANY_CPU, open_one, o, &error);
        if (code == VD_OK)
            continue; /* what else it has is the thread's until it is joined */
        o->code = code;
        o->error = error;
    }
    for (int i = 1; i < count; i++)
        vd_thread_join(&openings[i].thread);
}

static vd_code hand_out(opening *openings, int count, vd_device **out, vd_error *err) {
    const opening *failed = NULL;
    for (int i = count; i-- > 0;)
        if (openings[i].code != VD_OK)
            failed = &openings[i];
    for (int i = 0; i < count; i++) {
        out[i] = openings[i].device;
        if (failed && out[i])
            out[i]->table->close(out[i]);
    }
    if (failed)
        *err = failed->error;
    return failed ? failed->code : VD_OK;
}

static vd_code cuda_open(vd_backend *b, const int *ordinals, int count, vd_device **out, vd_error *err) {
    if (count < 1)
        return VD_OK;
    opening *openings = calloc((size_t)count, sizeof *openings);
    if (!openings)
        return vd_fail_memory(err, "a list of devices", (size_t)count * sizeof *openings);
    vd_code code = prepare(of(b), ordinals, count, openings, err);
    if (code == VD_OK) {
        open_each(openings, count);
        code = hand_out(openings, count, out, err);
    }
    free(openings);
    return code;
}

/* ---- links, memory, tuning ---- */

static vd_code cuda_connect(vd_backend *b, vd_device *from, vd_device *to, vd_p2p wish, vd_route_info *out,
                            vd_error *err) {
    (void)b;
    return vd_cuda_link_test(vd_cuda_of(from), vd_cuda_of(to), wish, out, err);
}

static vd_backend_memory cuda_memory(const vd_backend *base) {
    vd_cuda_backend *b = (vd_cuda_backend *)base;
    vd_backend_memory m = {.context = CONTEXT_BYTES};
    pthread_mutex_lock(&b->lock);
    for (const vd_cuda_device *d = b->devices; d; d = d->next) {
        size_t bytes = vd_cuda_weights_bytes(d->weights);
        m.device_weights = bytes > m.device_weights ? bytes : m.device_weights;
    }
    pthread_mutex_unlock(&b->lock);
    return m;
}

/* Whoever wants to know of trials, in the backend's words. */
typedef struct listener {
    void (*tried)(void *user, const vd_trial *trial);
    void *user;
} listener;

static void forward_trial(void *user, const vd_cuda_trial *t) {
    const listener *l = user;
    const vd_trial trial = {t->problem, t->plan, t->seconds, t->right};
    l->tried(l->user, &trial);
}

static vd_code cuda_tune(vd_backend *b, vd_device *base, void (*tried)(void *user, const vd_trial *trial),
                         void *user, vd_error *err) {
    (void)b;
    vd_cuda_device *d = vd_cuda_of(base);
    listener l = {tried, user};
    const vd_cuda_tuner tuner = {d->base.name, forward_trial, &l};
    VD_TRY(vd_cuda_enter(d, err));
    pthread_mutex_lock(&d->lock);
    vd_code code = vd_cuda_tune_open(d->math, &tuner, err);
    pthread_mutex_unlock(&d->lock);
    return code;
}

/* ---- kernels ---- */

static bool grow_kernels(vd_cuda_backend *b) {
    if (b->kernel_count < b->kernel_capacity)
        return true;
    int capacity = b->kernel_capacity ? 2 * b->kernel_capacity : 128;
    char **more = realloc(b->kernels, (size_t)capacity * sizeof *more);
    if (!more)
        return false;
    b->kernels = more;
    b->kernel_capacity = capacity;
    return true;
}

/* A line for which there is no memory is left out: nothing but -v and benchmarks reads them. */
void vd_cuda_note_kernel(void *user, const char *problem, const char *plan) {
    vd_cuda_backend *b = user;
    char *line;
    pthread_mutex_lock(&b->lock);
    if (grow_kernels(b) && asprintf(&line, "%s: %s", problem, plan) >= 0)
        b->kernels[b->kernel_count++] = line;
    pthread_mutex_unlock(&b->lock);
}

static int cuda_kernel_count(const vd_backend *base) {
    vd_cuda_backend *b = (vd_cuda_backend *)base;
    pthread_mutex_lock(&b->lock);
    int count = b->kernel_count;
    pthread_mutex_unlock(&b->lock);
    return count;
}

static const char *cuda_kernel(const vd_backend *base, int index) {
    vd_cuda_backend *b = (vd_cuda_backend *)base;
    pthread_mutex_lock(&b->lock);
    const char *line = b->kernels[index];
    pthread_mutex_unlock(&b->lock);
    return line;
}

/* ---- the backend ---- */

static void cuda_close(vd_backend *base) {
    vd_cuda_backend *b = of(base);
    vd_cuda_pool_close(b->pool);
    for (int i = 0; i < b->kernel_count; i++)
        free(b->kernels[i]);
    free(b->kernels);
    pthread_mutex_destroy(&b->lock);
    for (int i = 0; b->capture && i < b->count; i++)
        pthread_rwlock_destroy(&b->capture[i]);
    free(b->capture);
    free(b->cache_folder);
    free(b);
}

static const vd_backend_table cuda_backend_table = {
    .close = cuda_close,
    .count = cuda_count,
    .describe = cuda_describe,
    .open = cuda_open,
    .connect = cuda_connect,
    .memory = cuda_memory,
    .tune = cuda_tune,
    .kernel_count = cuda_kernel_count,
    .kernel = cuda_kernel,
};

static vd_code count_gpus(vd_cuda_backend *b, vd_error *err) {
    VD_TRY(vd_cuda_check(cudaDriverGetVersion(&b->base.driver), "cuda", "cudaDriverGetVersion", err));
    VD_TRY(vd_cuda_check(cudaRuntimeGetVersion(&b->base.runtime), "cuda", "cudaRuntimeGetVersion", err));
    b->base.cudnn = (int)cudnnGetVersion();
    int driver = b->base.driver, runtime = b->base.runtime;
    cudaError_t result = cudaGetDeviceCount(&b->count);
    (void)cudaGetLastError();
    if (driver == 0)
        return vd_fail(err, VD_ERR_UNAVAILABLE, "no CUDA here: NVIDIA's driver is not running");
    if (result == cudaErrorInsufficientDriver)
        return vd_fail(
            err, VD_ERR_UNAVAILABLE,
            "no CUDA here: the NVIDIA driver offers CUDA %d.%d and %d.%d is needed; update the driver",
            driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    if (result != cudaSuccess && result != cudaErrorNoDevice)
        return vd_fail(err, VD_ERR_UNAVAILABLE, "no CUDA here: %s (%s)", cudaGetErrorString(result),
                       cudaGetErrorName(result));
    if (result == cudaErrorNoDevice || b->count == 0)
        return vd_fail(err, VD_ERR_UNAVAILABLE, "no CUDA here: the driver sees no GPU");
    return VD_OK;
}

static vd_code open_backend(vd_cuda_backend *b, const vd_cuda_request *r, vd_error *err) {
    if (r->cache_folder && !(b->cache_folder = strdup(r->cache_folder)))
        return vd_fail_memory(err, "a folder's name", strlen(r->cache_folder));
    VD_TRY(count_gpus(b, err));
    if (!(b->capture = calloc((size_t)b->count, sizeof *b->capture)))
        return vd_fail_memory(err, "locks", (size_t)b->count * sizeof *b->capture);
    for (int i = 0; i < b->count; i++)
        pthread_rwlock_init(&b->capture[i], NULL);
    return vd_cuda_pool_open(&b->pool, err);
}

vd_code vd_cuda_entry(const vd_cuda_request *request, vd_backend **out, vd_error *err) {
    vd_cuda_backend *b = calloc(1, sizeof *b);
    if (!b)
        return vd_fail_memory(err, "the CUDA backend", sizeof *b);
    b->base = (vd_backend){
        .table = &cuda_backend_table, .kind = "cuda", .default_dtype = VD_F16, .own_memory = true};
    b->log = request->log;
    b->tf32 = request->tf32;
    pthread_mutex_init(&b->lock, NULL);
    vd_code code = open_backend(b, request, err);
    if (code == VD_OK)
        *out = &b->base;
    else
        cuda_close(&b->base);
    return code;
}
