/* Inside of the CUDA backend: how an operation of the list becomes kernel launches. Not for callers of
 * device.h. */
#ifndef VD_DEVICE_CUDA_H
#define VD_DEVICE_CUDA_H

#include "device/cuda_products.h"
#include "device/device.h"

/* ---- cuda_error.c ---- */

/* VD_OK, or an error that names the device and what was called. Errors that leave the whole process's CUDA
 * useless (one table says which) get VD_ERR_TRY_AGAIN: finished outputs stand and a new process goes on;
 * out of memory gets VD_ERR_UNAVAILABLE. */
vd_code vd_cuda_check(cudaError_t result, const char *device, const char *what, vd_error *err);
bool vd_cuda_poisons(cudaError_t result);

/* ---- cuda_weights.c: constants in device memory, one copy per device and layout ---- */

typedef enum vd_cuda_layout {
    VD_CUDA_DENSE,  /* as it is */
    VD_CUDA_FILTER, /* [k, c, kh, kw] -> [k, kh, kw, c] */
    /* [k, c, 3, 3] -> [4, k, 2, 2, c]: what a filter is on a picture before nearest neighbour doubles it.
     * Taps that meet on one pixel there are summed in fp32; phase 2a + b is for pixels (2i + a, 2j + b) of
     * the result, on pixels (i - 1 + a .. i + a, j - 1 + b .. j + b) (cuda.md 2.4). A vector [k] -> [4, k].
     * Rows are filled up in each phase. */
    VD_CUDA_PHASES,
} vd_cuda_layout;
enum { VD_CUDA_PHASE_COUNT = 4 };

/* How a constant lies in device memory. Folding (cuda.md 2.4) is done in fp32 before the one rounding. */
typedef struct vd_cuda_packing {
    const vd_constant *constant; /* NULL: pad_k zeros */
    vd_cuda_layout layout;
    vd_dtype dtype;
    int64_t pad_k,
        pad_c;   /* rows (dims[0]) and channels (dims[1]) are filled up with zeros to these; 0: as they are */
    float scale; /* times this */
    /* A matrix that a layer norm comes before: column j times gamma[j], and behind the matrix, from
     * vd_cuda_packed_bias_at on, the product's bias with matrix * beta added. gamma and beta NULL: no
     * norm; bias NULL: the product has none of its own. */
    const vd_constant *gamma, *beta, *bias;
    vd_dtype bias_dtype;
} vd_cuda_packing;
#define VD_CUDA_PACKING(...) ((vd_cuda_packing){.scale = 1, __VA_ARGS__})

/* Packs on the host: `out` receives vd_cuda_packed_bytes bytes. From any thread. */
size_t vd_cuda_packed_bytes(const vd_cuda_packing *p);
size_t vd_cuda_packed_bias_at(const vd_cuda_packing *p); /* bytes; a multiple of VD_ALIGNMENT */
vd_code vd_cuda_pack(const vd_cuda_packing *p, void *out, vd_error *err);

/* What the devices of a backend share: a constant is read and packed once, by whichever device's thread
 * comes first. Packed copies stay in host memory up to a limit, so that devices which load at about the
 * same time all find them. */
typedef struct vd_cuda_pool vd_cuda_pool;
vd_code vd_cuda_pool_open(vd_cuda_pool **out, vd_error *err);
void vd_cuda_pool_close(vd_cuda_pool *pool); /* after the weights; NULL is fine */

/* The weights of one device: planned while programs are compiled, placed and sent when they are loaded.
 * One thread at a time. */
typedef struct vd_cuda_weights vd_cuda_weights;
typedef struct vd_cuda_constant vd_cuda_constant;
/* `device`: current on the calling thread; its name, for errors, outlives the weights. */
vd_code vd_cuda_weights_open(vd_cuda_pool *pool, const char *device, vd_cuda_weights **out, vd_error *err);
void vd_cuda_weights_close(vd_cuda_weights *w);
const char *vd_cuda_weights_device(const vd_cuda_weights *w);
size_t vd_cuda_weights_bytes(const vd_cuda_weights *w); /* of all constants planned so far */
size_t vd_cuda_weights_taken(const vd_cuda_weights *w); /* of those that have their memory */
/* Waits until everything loaded so far has arrived; before the first launch that reads it. */
vd_code vd_cuda_weights_settle(vd_cuda_weights *w, vd_error *err);

/* Constants of a batch take their memory together, when the first of them is loaded, and none for others:
 * what loading a program needs does not depend on what else was planned. */
void vd_cuda_weights_next_batch(vd_cuda_weights *w);

/* Asking again for the same packing gives the same constant. It is the weights' own. */
vd_code vd_cuda_constant_plan(vd_cuda_weights *w, const vd_cuda_packing *packing, vd_cuda_constant **out,
                              vd_error *err);
vd_code vd_cuda_constant_load(vd_cuda_constant *c, vd_error *err);
void *vd_cuda_constant_data(const vd_cuda_constant *c); /* device memory; after load */

/* ---- operations ---- */

/* What planning an operation may use. */
typedef struct vd_cuda_planner {
    vd_cuda_math *math;
    vd_cuda_weights *weights;
    const vd_program *program;
    size_t piece_bytes; /* a convolution that wants more scratch takes a few images at a time; 0: its limit */
} vd_cuda_planner;

/* An operation planned for its shape. */
typedef struct vd_cuda_step vd_cuda_step;

/* One call, in a stream that is being captured: where each value of the program is, and scratch of the
 * size that planning asked for, 256-byte aligned. */
typedef struct vd_cuda_call {
    void *const *at; /* [value_count] device memory */
    void *scratch;
    cudaStream_t stream;
    const vd_program *program;
    const char *device; /* its name, for errors */
} vd_cuda_call;

typedef struct vd_cuda_op {
    /* `step` has step_bytes zero bytes. NULL: nothing to plan. */
    size_t step_bytes;
    vd_code (*plan)(const vd_cuda_planner *planner, const vd_op *op, vd_cuda_step *step, size_t *scratch,
                    vd_error *err);
    vd_code (*load)(vd_cuda_step *step, vd_error *err); /* its constants; NULL: none */
    vd_code (*run)(const vd_op *op, const vd_cuda_step *step, const vd_cuda_call *call, vd_error *err);
    void (*close)(vd_cuda_step *step); /* its plans; NULL: none */
} vd_cuda_op;

extern const vd_cuda_op *const vd_cuda_ops[VD_OP_COUNT]; /* cuda_table.c */

extern const vd_cuda_op vd_cuda_conv, vd_cuda_linear,
    vd_cuda_feed_forward;                                      /* cuda_conv.c, cuda_linear.c, ... */
extern const vd_cuda_op vd_cuda_attention, vd_cuda_layer_norm; /* cuda_attention.c, cuda_norm.c */
extern const vd_cuda_op vd_cuda_sinusoid, vd_cuda_gather_row,
    vd_cuda_unet_input;                                                      /* cuda_embed.c, cuda_step.c */
extern const vd_cuda_op vd_cuda_euler_step, vd_cuda_cast, vd_cuda_frames_u8; /* cuda_step.c, cuda_misc.c */
extern const vd_cuda_op vd_cuda_copy, vd_cuda_checksum, vd_cuda_nonfinite;   /* cuda_misc.c */

#endif
