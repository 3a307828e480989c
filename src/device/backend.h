/* Backends: the kinds of devices there are. A backend holds what its devices share (plans, one copy of the
 * weights on the host or for all) and knows what the machine has. The CPU's is always there; CUDA's stands in
 * a module that is opened when it is asked for, so that a program without GPUs neither loads nor needs
 * NVIDIA's libraries. */
#ifndef VD_DEVICE_BACKEND_H
#define VD_DEVICE_BACKEND_H

#include "device/device.h"

typedef struct vd_backend vd_backend;

/* One device that a backend could open. */
typedef struct vd_device_info {
    char name[16];  /* "cuda:0" */
    char model[96]; /* "NVIDIA RTX A5000"; the processor's, with the instruction set in use */
    char bus[24];   /* "0000:3b:00.0"; empty on the CPU */
    int node;       /* NUMA node; -1: unknown */
    /* Bytes; of the machine on the CPU. `free` is 0, unknown, where asking would cost a context: before a
     * device is open there. */
    size_t memory, free;
} vd_device_info;

/* How states get from one device to another, as the start-up test found it. */
typedef enum vd_route { VD_ROUTE_LOCAL, VD_ROUTE_PEER, VD_ROUTE_STAGED } vd_route;
typedef struct vd_route_info {
    vd_route route;
    bool reachable;                /* the hardware offers peer access */
    bool damaged;                  /* it does, and what arrived was wrong */
    double bytes_per_s, latency_s; /* measured; 0: not */
} vd_route_info;

const char *vd_route_name(vd_route route); /* "local", "peer", "staged" */

typedef enum vd_p2p { VD_P2P_AUTO, VD_P2P_ON, VD_P2P_OFF } vd_p2p;
/* "auto", "on", "off"; NULL is auto. */
vd_code vd_p2p_parse(const char *wish, vd_p2p *out, vd_error *err);

/* One plan on trial for one convolution, product or attention. */
typedef struct vd_trial {
    const char *problem, *plan; /* their names */
    double seconds;             /* of one run */
    bool right;                 /* else it is out, whatever its time */
} vd_trial;

/* Bytes beside the arenas and buffers that whoever opens a run plans himself. */
typedef struct vd_backend_memory {
    size_t shared_weights; /* on the host, one copy for all devices */
    size_t device_weights; /* on each device */
    size_t code;           /* on the host: generated or loaded kernels, for all devices together */
    size_t context;        /* on each device: what the driver will still take once devices are open */
} vd_backend_memory;

typedef struct vd_backend_table {
    void (*close)(vd_backend *b); /* after its devices */
    /* Devices there are; the CPU has as many as anyone wants and says 0. */
    int (*count)(const vd_backend *b);
    vd_code (*describe)(const vd_backend *b, int ordinal, vd_device_info *out, vd_error *err);
    /* Opens `count` devices at once; the same ordinal twice gives two devices on one GPU. On failure none
     * stays open. */
    vd_code (*open)(vd_backend *b, const int *ordinals, int count, vd_device **out, vd_error *err);
    /* Tests the way from `from` to `to`, both open and at rest, with random bytes in both directions at once,
     * the receiver checking its own memory, and chooses the route that copy_peer takes that way from then
     * on. */
    vd_code (*connect)(vd_backend *b, vd_device *from, vd_device *to, vd_p2p wish, vd_route_info *out,
                       vd_error *err);
    /* Of the programs compiled so far. */
    vd_backend_memory (*memory)(const vd_backend *b);
    /* Tries every plan for what the programs compiled on `d` so far contain, and keeps the fastest right
     * ones for runs to come. NULL: a backend that knows without trying. */
    vd_code (*tune)(vd_backend *b, vd_device *d, void (*tried)(void *user, const vd_trial *trial), void *user,
                    vd_error *err);
    /* One line per convolution, product or attention of a library's compiled so far, each time that it is
     * chosen anew: "label: kernel". For -v, for benchmarks, and for the test that refuses reference code. */
    int (*kernel_count)(const vd_backend *b);
    const char *(*kernel)(const vd_backend *b, int index);
} vd_backend_table;

/* First member of every backend. */
struct vd_backend {
    const vd_backend_table *table;
    const char *kind;           /* "cpu", "cuda" */
    vd_dtype default_dtype;     /* what --dtype is when nobody says */
    bool own_memory;            /* devices have memory of their own; else they take the machine's */
    int driver, runtime, cudnn; /* versions: 13000 is 13.0, 91900 is 9.19.0; 0 on the CPU */
};

/* Virtual CPU devices: each has its own streams, events and memory, and one thread that computes. */
vd_code vd_cpu_backend_open(const vd_log *log, vd_backend **out, vd_error *err);

typedef struct vd_cuda_request {
    const vd_log *log;
    const char *module;       /* file of the module, with which no driver is looked for; NULL: the build's */
    const char *cache_folder; /* of the tuner; NULL: none */
    bool tf32;                /* allowed in fp32 */
} vd_cuda_request;
/* VD_ERR_UNAVAILABLE, with the reason, where there is no module, no driver or no GPU. */
vd_code vd_cuda_backend_open(const vd_cuda_request *request, vd_backend **out, vd_error *err);

#endif
