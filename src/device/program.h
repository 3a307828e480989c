/* A program is a network for one shape as pure data: values, and operations on them in order. It is built
 * and checked once, above all backends; its memory is planned before anything is allocated; every device
 * of a kind runs the same program. On CUDA it becomes one graph.
 *
 *     vd_program *p = vd_program_new("decoder", VD_F16);
 *     vd_value z = vd_program_external(p, "latents", VD_F32, shape);
 *     vd_value x = vd_program_conv(p, (vd_conv){.src = z, .weight = w, .bias = b, ...});
 *     ...
 *     VD_TRY(vd_program_finish(p, err));
 *
 * Building never fails visibly: the first error is kept and vd_program_finish returns it. Optional
 * vd_value fields must be VD_NONE, not 0: the VD_CONV, VD_LINEAR ... macros below set those defaults. */
#ifndef VD_DEVICE_PROGRAM_H
#define VD_DEVICE_PROGRAM_H

#include "device/ops.h"

typedef enum vd_storage {
    VD_STORAGE_ARENA, /* lives between its first write and its last use; place planned by vd_program_finish */
    VD_STORAGE_EXTERNAL, /* memory that whoever runs the program binds by name */
    VD_STORAGE_CONSTANT, /* a vd_constant, resident on the device */
    VD_STORAGE_VIEW,     /* bytes of another value */
} vd_storage;

typedef struct vd_value_info {
    vd_storage storage;
    vd_dtype dtype;
    vd_shape shape;
    const char *name;            /* external: what it is bound by; else NULL */
    const vd_constant *constant; /* constant only */
    vd_value parent;             /* view: never itself a view */
    size_t offset;               /* view: bytes into the parent; arena: bytes into the arena after finish */
} vd_value_info;

typedef struct vd_program {
    char name[32];
    vd_dtype dtype; /* T */
    vd_value_info *values;
    int value_count;
    vd_op *ops;
    int op_count;
    size_t arena_bytes; /* of all arena values together, after finish */
    int value_capacity, op_capacity;
    vd_error error; /* the first one while building */
} vd_program;

vd_program *vd_program_new(const char *name, vd_dtype dtype); /* NULL: out of memory */
void vd_program_free(vd_program *program);

vd_value vd_program_external(vd_program *p, const char *name, vd_dtype dtype,
                             vd_shape shape); /* name: static or outlives p */
vd_value vd_program_constant(vd_program *p, const vd_constant *constant, vd_dtype dtype, vd_shape shape);
vd_value vd_program_temporary(vd_program *p, vd_dtype dtype, vd_shape shape);
/* `shape` starting `offset` elements into `value`, of the same type. */
vd_value vd_program_view(vd_program *p, vd_value value, vd_shape shape, int64_t offset);
vd_shape vd_program_shape(const vd_program *p, vd_value value);
vd_value vd_program_find(const vd_program *p, const char *name); /* external by name; VD_NONE */

/* Appends an operation and returns its destination. With dst VD_NONE a temporary of the right shape is
 * made, of type T unless the operation says otherwise; a residual (or the source of a feed-forward) that
 * dies here gives its place to it. */
vd_value vd_program_conv(vd_program *p, vd_conv op);
vd_value vd_program_linear(vd_program *p, vd_linear op);
vd_value vd_program_feed_forward(vd_program *p, vd_feed_forward op);
vd_value vd_program_attention(vd_program *p, vd_attention op);
vd_value vd_program_layer_norm(vd_program *p, vd_layer_norm op);
vd_value vd_program_sinusoid(vd_program *p, vd_sinusoid op); /* dst required */
vd_value vd_program_gather_row(vd_program *p, vd_gather_row op);
vd_value vd_program_unet_input(vd_program *p, vd_unet_input op); /* dst required */
void vd_program_euler_step(vd_program *p, vd_euler_step op);
vd_value vd_program_cast(vd_program *p, vd_cast op); /* dst required */
vd_value vd_program_frames_u8(vd_program *p, vd_frames_u8 op);
void vd_program_copy(vd_program *p, vd_copy op);
void vd_program_checksum(vd_program *p, vd_checksum op);
void vd_program_nonfinite(vd_program *p, vd_nonfinite op);

#define VD_CONV(...)                                                                                         \
    ((vd_conv){.src1 = VD_NONE,                                                                              \
               .bias_value = VD_NONE,                                                                        \
               .residual = VD_NONE,                                                                          \
               .dst = VD_NONE,                                                                               \
               .stride = 1,                                                                                  \
               __VA_ARGS__})
#define VD_LINEAR(...) ((vd_linear){.bias_value = VD_NONE, .residual = VD_NONE, .dst = VD_NONE, __VA_ARGS__})
#define VD_FEED_FORWARD(...) ((vd_feed_forward){.add = VD_NONE, .mix = VD_NONE, .dst = VD_NONE, __VA_ARGS__})
#define VD_ATTENTION(...) ((vd_attention){.dst = VD_NONE, __VA_ARGS__})

/* Checks every operation's shapes and types, proves that nothing is read before it is written, lets
 * destinations take over dying sources, and plans the arena. The program is immutable from then on. */
vd_code vd_program_finish(vd_program *p, vd_error *err);

/* What an operation touches. */
typedef struct vd_operand {
    vd_value value;
    bool reads, writes;
} vd_operand;
enum { VD_MAX_OPERANDS = 8 };
int vd_op_operands(const vd_op *op, vd_operand *out); /* [VD_MAX_OPERANDS]; returns the count */

/* Constants of an operation (weights, biases, norm vectors). */
enum { VD_MAX_CONSTANTS = 8 };
int vd_op_constants(const vd_op *op, const vd_constant **out); /* [VD_MAX_CONSTANTS]; returns the count */

/* Multiply-adds of the whole program, times two: for reports. */
double vd_program_flops(const vd_program *p);

#endif
