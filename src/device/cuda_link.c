/* Ways between two CUDA devices. Peer access is what the hardware says; whether bytes arrive is tested, for
 * there are machines that report success and deliver something else (cuda.md 7). */
#include "device/cuda_device.h"

#include "base/hash.h"
#include "base/thread.h"
#include "kernels/kernels.h"

#include <stdlib.h>
#include <string.h>

enum {
    PIECES = 2, /* of a staged copy in flight: one leaves the sender while the other reaches the receiver */
    PIECE_BYTES = 1 << 20,
    PROBE_BYTES = 16 << 20,
    PINGS = 16, /* small copies, one after the other, for the latency */
    PING_BYTES = 4096,
};

static const size_t probe_sizes[] = {PING_BYTES, 1 << 20, PROBE_BYTES};

struct vd_cuda_link {
    vd_cuda_link *next;
    vd_cuda_device *to;
    vd_route route;
    /* staged only */
    void *pieces[PIECES];        /* pinned, for both devices */
    cudaEvent_t filled[PIECES];  /* of the sender */
    cudaEvent_t emptied[PIECES]; /* of the receiver */
    cudaStream_t lane;           /* of the receiver */
};

/* ---- copying ---- */

static const vd_cuda_link *find_link(const vd_cuda_device *from, const vd_cuda_device *to) {
    const vd_cuda_link *l = from->links;
    while (l && l->to != to)
        l = l->next;
    return l;
}

/* Piece by piece to the host on the sender's stream, on from there on a stream of the receiver. The sender's
 * stream ends behind the last of them. */
static vd_code copy_staged(vd_cuda_device *from, const vd_cuda_link *l, cudaStream_t stream,
                           unsigned char *target, const unsigned char *source, size_t bytes, vd_error *err) {
    int piece = 0;
    for (size_t at = 0; at < bytes; at += PIECE_BYTES, piece = (piece + 1) % PIECES) {
        size_t part = bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES;
        void *host = l->pieces[piece];
        VD_TRY(VD_CUDA(from, cudaStreamWaitEvent(stream, l->emptied[piece], 0)));
        VD_TRY(VD_CUDA(from, cudaMemcpyAsync(host, source + at, part, cudaMemcpyDeviceToHost, stream)));
        VD_TRY(VD_CUDA(from, cudaEventRecord(l->filled[piece], stream)));
        VD_TRY(VD_CUDA(l->to, cudaStreamWaitEvent(l->lane, l->filled[piece], 0)));
        VD_TRY(VD_CUDA(l->to, cudaMemcpyAsync(target + at, host, part, cudaMemcpyHostToDevice, l->lane)));
        VD_TRY(VD_CUDA(l->to, cudaEventRecord(l->emptied[piece], l->lane)));
    }
    for (int i = 0; i < PIECES; i++)
        VD_TRY(VD_CUDA(from, cudaStreamWaitEvent(stream, l->emptied[i], 0)));
    return VD_OK;
}

static vd_code copy_by(vd_cuda_device *from, const vd_cuda_link *l, cudaStream_t stream, void *target,
                       const void *source, size_t bytes, vd_error *err) {
    if (l->route == VD_ROUTE_STAGED)
        return copy_staged(from, l, stream, target, source, bytes, err);
    if (l->route == VD_ROUTE_LOCAL)
        return VD_CUDA(from, cudaMemcpyAsync(target, source, bytes, cudaMemcpyDeviceToDevice, stream));
    return VD_CUDA(from, cudaMemcpyPeerAsync(target, l->to->ordinal, source, from->ordinal, bytes, stream));
}

vd_code vd_cuda_link_copy(vd_cuda_device *from, vd_cuda_device *to, cudaStream_t stream, void *target,
                          const void *source, size_t bytes, vd_error *err) {
    const vd_cuda_link *l = find_link(from, to);
    vd_cuda_link untested = {.to = to,
                             .route = from->ordinal == to->ordinal ? VD_ROUTE_LOCAL : VD_ROUTE_PEER};
    return copy_by(from, l ? l : &untested, stream, target, source, bytes, err);
}

/* ---- opening and closing ---- */

static vd_code open_staging(vd_cuda_device *from, vd_cuda_link *l, vd_error *err) {
    for (int i = 0; i < PIECES; i++) {
        VD_TRY(VD_CUDA(from, cudaHostAlloc(&l->pieces[i], PIECE_BYTES, cudaHostAllocPortable)));
        VD_TRY(VD_CUDA(from, cudaEventCreateWithFlags(&l->filled[i], cudaEventDisableTiming)));
    }
    VD_TRY(vd_cuda_enter(l->to, err));
    for (int i = 0; i < PIECES; i++)
        VD_TRY(VD_CUDA(l->to, cudaEventCreateWithFlags(&l->emptied[i], cudaEventDisableTiming)));
    VD_TRY(VD_CUDA(l->to, cudaStreamCreateWithFlags(&l->lane, cudaStreamNonBlocking)));
    return vd_cuda_enter(from, err);
}

static void close_link(vd_cuda_link *l) {
    if (l->lane)
        (void)cudaStreamDestroy(l->lane);
    for (int i = 0; i < PIECES; i++) {
        if (l->filled[i])
            (void)cudaEventDestroy(l->filled[i]);
        if (l->emptied[i])
            (void)cudaEventDestroy(l->emptied[i]);
        if (l->pieces[i])
            (void)cudaFreeHost(l->pieces[i]);
    }
    free(l);
}

void vd_cuda_links_close(vd_cuda_device *d) {
    for (vd_cuda_link *l = d->links, *next; l; l = next) {
        next = l->next;
        close_link(l);
    }
    d->links = NULL;
}

/* ---- testing ---- */

/* One end of a way under test. */
typedef struct station {
    vd_cuda_device *device;
    unsigned char *out, *in; /* [PROBE_BYTES] on the device */
    void *scratch;
    uint64_t *sum;
} station;

typedef struct trial {
    station from, to;
    unsigned char *pattern; /* [PROBE_BYTES] random, pinned */
    uint64_t *arrived;      /* pinned: the receiver's checksum */
} trial;

static vd_code open_station(station *s, const trial *t, vd_error *err) {
    vd_cuda_device *d = s->device;
    VD_TRY(vd_cuda_enter(d, err));
    VD_TRY(VD_CUDA(d, cudaMalloc((void **)&s->out, PROBE_BYTES)));
    VD_TRY(VD_CUDA(d, cudaMalloc((void **)&s->in, PROBE_BYTES)));
    VD_TRY(VD_CUDA(d, cudaMalloc(&s->scratch, VDK_REDUCE_SCRATCH)));
    VD_TRY(VD_CUDA(d, cudaMalloc((void **)&s->sum, sizeof *s->sum)));
    VD_TRY(VD_CUDA(d, cudaMemcpyAsync(s->out, t->pattern, PROBE_BYTES, cudaMemcpyHostToDevice, d->setup)));
    return VD_CUDA(d, cudaStreamSynchronize(d->setup));
}

static void close_station(station *s) {
    void *memory[] = {s->out, s->in, s->scratch, s->sum};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        if (memory[i])
            (void)cudaFree(memory[i]);
}

static vd_code open_trial(trial *t, vd_cuda_device *from, vd_cuda_device *to, vd_error *err) {
    *t = (trial){.from.device = from, .to.device = to};
    VD_TRY(vd_cuda_enter(from, err));
    VD_TRY(VD_CUDA(from, cudaHostAlloc((void **)&t->pattern, PROBE_BYTES, cudaHostAllocPortable)));
    VD_TRY(VD_CUDA(from, cudaHostAlloc((void **)&t->arrived, sizeof *t->arrived, cudaHostAllocPortable)));
    uint64_t state = 1;
    for (size_t i = 0; i < PROBE_BYTES; i += sizeof state) {
        state = state * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX */
        uint64_t word = state ^ state >> 32;
        memcpy(t->pattern + i, &word, sizeof word);
    }
    VD_TRY(open_station(&t->from, t, err));
    return open_station(&t->to, t, err);
}

/* After an error, copies may still be on their way. */
static void close_trial(trial *t) {
    (void)cudaStreamSynchronize(t->from.device->setup);
    (void)cudaStreamSynchronize(t->to.device->setup);
    close_station(&t->from);
    close_station(&t->to);
    if (t->pattern)
        (void)cudaFreeHost(t->pattern);
    if (t->arrived)
        (void)cudaFreeHost(t->arrived);
}

/* Sends `bytes` while as many come the other way. */
static vd_code send(const trial *t, const vd_cuda_link *l, size_t bytes, double *seconds, vd_error *err) {
    vd_cuda_device *from = t->from.device, *to = t->to.device;
    double began = vd_now();
    VD_TRY(VD_CUDA(to,
                   cudaMemcpyPeerAsync(t->from.in, from->ordinal, t->to.out, to->ordinal, bytes, to->setup)));
    VD_TRY(copy_by(from, l, from->setup, t->to.in, t->from.out, bytes, err));
    VD_TRY(VD_CUDA(from, cudaStreamSynchronize(from->setup)));
    *seconds = vd_now() - began;
    return VD_CUDA(to, cudaStreamSynchronize(to->setup));
}

/* The receiver sums up what lies in its memory. */
static vd_code check(const trial *t, size_t bytes, bool *good, vd_error *err) {
    vd_cuda_device *to = t->to.device;
    VD_TRY(vd_cuda_enter(to, err));
    VD_TRY(VD_CUDA(to, vdk_run_checksum(t->to.in, bytes, t->to.sum, t->to.scratch, to->setup)));
    VD_TRY(VD_CUDA(
        to, cudaMemcpyAsync(t->arrived, t->to.sum, sizeof *t->arrived, cudaMemcpyDeviceToHost, to->setup)));
    VD_TRY(VD_CUDA(to, cudaStreamSynchronize(to->setup)));
    *good = *t->arrived == vd_hash64(t->pattern, bytes);
    return VD_OK;
}

static vd_code probe(const trial *t, const vd_cuda_link *l, size_t bytes, double *seconds, bool *good,
                     vd_error *err) {
    vd_cuda_device *to = t->to.device;
    VD_TRY(vd_cuda_enter(to, err));
    VD_TRY(VD_CUDA(to, cudaMemsetAsync(t->to.in, 0, bytes, to->setup))); /* nothing of the last time passes */
    VD_TRY(VD_CUDA(to, cudaStreamSynchronize(to->setup)));
    VD_TRY(vd_cuda_enter(t->from.device, err));
    VD_TRY(send(t, l, bytes, seconds, err));
    return check(t, bytes, good, err);
}

/* Sizes from small to large; the last gives the bandwidth. Then the latency, with nothing else on the way. */
static vd_code judge(const trial *t, const vd_cuda_link *l, vd_route_info *out, bool *good, vd_error *err) {
    double seconds = 0;
    *good = true;
    for (size_t i = 0; i < sizeof probe_sizes / sizeof *probe_sizes && *good; i++)
        VD_TRY(probe(t, l, probe_sizes[i], &seconds, good, err));
    out->bytes_per_s = PROBE_BYTES / seconds;
    VD_TRY(vd_cuda_enter(t->from.device, err));
    double began = vd_now();
    for (int i = 0; i < PINGS && *good; i++) {
        VD_TRY(copy_by(t->from.device, l, t->from.device->setup, t->to.in, t->from.out, PING_BYTES, err));
        VD_TRY(VD_CUDA(t->from.device, cudaStreamSynchronize(t->from.device->setup)));
    }
    out->latency_s = (vd_now() - began) / PINGS;
    return VD_OK;
}

/* False: there is none, or there would be too many. */
static bool enable_peer(vd_cuda_device *from, const vd_cuda_device *to) {
    int offered = 0;
    cudaError_t result = cudaDeviceCanAccessPeer(&offered, from->ordinal, to->ordinal);
    if (result == cudaSuccess && offered)
        result = cudaDeviceEnablePeerAccess(to->ordinal, 0);
    if (result == cudaSuccess)
        return offered;
    (void)cudaGetLastError();
    return result == cudaErrorPeerAccessAlreadyEnabled;
}

static vd_code refuse(const vd_cuda_link *l, const vd_cuda_device *from, const vd_route_info *found,
                      vd_error *err) {
    return vd_fail(err, VD_ERR_UNAVAILABLE,
                   "--p2p on: from device %s to %s %s; use --p2p auto, which goes through host memory",
                   from->base.name, l->to->base.name,
                   found->damaged ? "data arrives damaged" : "there is no peer access");
}

static vd_code choose(const trial *t, vd_cuda_link *l, vd_p2p wish, vd_route_info *out, vd_error *err) {
    vd_cuda_device *from = t->from.device;
    bool good = false;
    VD_TRY(vd_cuda_enter(from, err));
    out->reachable = wish != VD_P2P_OFF && enable_peer(from, l->to);
    l->route = VD_ROUTE_PEER;
    if (out->reachable)
        VD_TRY(judge(t, l, out, &good, err));
    if (good)
        return VD_OK;
    out->damaged = out->reachable;
    if (wish == VD_P2P_ON)
        return refuse(l, from, out, err);
    l->route = VD_ROUTE_STAGED;
    VD_TRY(open_staging(from, l, err));
    VD_TRY(judge(t, l, out, &good, err));
    return good ? VD_OK
                : vd_fail(err, VD_ERR_UNAVAILABLE,
                          "from device %s to %s data arrives damaged even through host memory; leave one of "
                          "them out",
                          from->base.name, l->to->base.name);
}

static vd_code try_ways(vd_cuda_device *from, vd_cuda_link *l, vd_p2p wish, vd_route_info *out,
                        vd_error *err) {
    trial t;
    if (from->ordinal == l->to->ordinal) {
        l->route = VD_ROUTE_LOCAL;
        return VD_OK;
    }
    vd_code code = open_trial(&t, from, l->to, err);
    if (code == VD_OK)
        code = choose(&t, l, wish, out, err);
    close_trial(&t);
    return code;
}

static void forget(vd_cuda_device *from, const vd_cuda_device *to) {
    for (vd_cuda_link **at = &from->links; *at; at = &(*at)->next)
        if ((*at)->to == to) {
            vd_cuda_link *old = *at;
            *at = old->next;
            close_link(old);
            return;
        }
}

vd_code vd_cuda_link_test(vd_cuda_device *from, vd_cuda_device *to, vd_p2p wish, vd_route_info *out,
                          vd_error *err) {
    vd_cuda_link *l = calloc(1, sizeof *l);
    if (!l)
        return vd_fail_memory(err, "a link", sizeof *l);
    l->to = to;
    *out = (vd_route_info){0};
    vd_code code = try_ways(from, l, wish, out, err);
    if (code != VD_OK) {
        close_link(l);
        return code;
    }
    forget(from, to);
    l->next = from->links;
    from->links = l;
    out->route = l->route;
    return VD_OK;
}
