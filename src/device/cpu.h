/* Inside of the CPU backend: how an operation of the list becomes something that runs. Not for callers of
 * device.h. */
#ifndef VD_DEVICE_CPU_H
#define VD_DEVICE_CPU_H

#include "device/cpu_kernels.h"
#include "device/device.h"

typedef struct vd_cpu_library
    vd_cpu_library; /* cpu_dnnl.c: engine, primitives and packed weights, shared by all devices */

/* State of one compute stream's worker: what may not be shared between threads. */
typedef struct vd_cpu_worker vd_cpu_worker; /* cpu_dnnl.c: stream, memory objects */
vd_code vd_cpu_worker_open(vd_cpu_library *library, vd_cpu_worker **out,
                           vd_error *err); /* on the worker's own thread */
void vd_cpu_worker_close(vd_cpu_worker *w);

/* An operation planned for its shape. Immutable after load; run by any number of workers at once. */
typedef struct vd_cpu_plan vd_cpu_plan;

/* One call: where each value of the program is, scratch of the plan's size (64-byte aligned), and whose
 * thread it is. */
typedef struct vd_cpu_call {
    void *const *at; /* [value_count] */
    void *scratch;
    vd_cpu_worker *worker;
} vd_cpu_call;

/* The closed table: one entry per vd_op_kind (cpu_table.c). */
typedef struct vd_cpu_op {
    /* Chooses kernels, says how much scratch is needed (0 at entry). `plan` has plan_bytes zero bytes and
     * owns nothing else. NULL: no plan, `run` gets NULL. */
    size_t plan_bytes;
    vd_code (*plan)(vd_cpu_library *library, const vd_program *p, const vd_op *op, vd_cpu_plan *plan,
                    size_t *scratch, vd_error *err);
    /* Packs its constants (each once per backend); may be called from several threads for different plans,
     * and again. */
    vd_code (*load)(vd_cpu_library *library, vd_cpu_plan *plan, vd_error *err);
    vd_code (*run)(const vd_program *p, const vd_op *op, const vd_cpu_plan *plan, const vd_cpu_call *call,
                   vd_error *err);
} vd_cpu_op;

extern const vd_cpu_op *const vd_cpu_ops[VD_OP_COUNT];

/* A new plan of `op` through its table entry: `*out` is freed with free(), NULL where the entry needs
 * none. */
vd_code vd_cpu_plan_new(const vd_cpu_op *entry, vd_cpu_library *library, const vd_program *p, const vd_op *op,
                        vd_cpu_plan **out, size_t *scratch, vd_error *err);

/* cpu_dnnl.c and cpu_weights.c */
vd_code vd_cpu_library_open(vd_cpu_library **out, vd_error *err);
void vd_cpu_library_close(vd_cpu_library *l);
const vd_kernels *vd_cpu_library_kernels(const vd_cpu_library *l);
size_t vd_cpu_library_weight_bytes(const vd_cpu_library *l);
int vd_cpu_library_kernel_count(const vd_cpu_library *l);
const char *vd_cpu_library_kernel(const vd_cpu_library *l, int index);

/* A vector or table constant as dense memory of `dtype`, filled once and shared (norm vectors, biases,
 * constant values of programs). Planned first (counts bytes), then available after load. Pointers stay
 * valid until the library closes. */
typedef struct vd_cpu_constant vd_cpu_constant;
vd_code vd_cpu_constant_plan(vd_cpu_library *l, const vd_constant *c, vd_dtype dtype, vd_cpu_constant **out,
                             vd_error *err);
vd_code vd_cpu_constant_load(vd_cpu_constant *c, vd_error *err); /* thread-safe, once */
const void *vd_cpu_constant_data(const vd_cpu_constant *c);

/* Operations by file. */
extern const vd_cpu_op vd_cpu_conv, vd_cpu_linear,
    vd_cpu_feed_forward;                                    /* cpu_conv.c, cpu_linear.c, cpu_feed_forward.c */
extern const vd_cpu_op vd_cpu_attention, vd_cpu_layer_norm; /* cpu_attention.c, cpu_norm.c */
extern const vd_cpu_op vd_cpu_sinusoid, vd_cpu_gather_row, vd_cpu_unet_input; /* cpu_embed.c, cpu_step.c */
extern const vd_cpu_op vd_cpu_euler_step, vd_cpu_cast, vd_cpu_frames_u8;      /* cpu_step.c, cpu_misc.c */
extern const vd_cpu_op vd_cpu_copy, vd_cpu_checksum, vd_cpu_nonfinite;        /* cpu_misc.c */

#endif
