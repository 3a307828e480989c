/* What the convolutions and products of the CPU backend share: primitives of oneDNN by geometry, and
 * constants packed for them. Both live in the library of the backend until it closes. */
#ifndef VD_DEVICE_CPU_LIBRARY_H
#define VD_DEVICE_CPU_LIBRARY_H

#include "device/cpu.h"

#include <pthread.h>

/* One convolution or matrix product for one shape. Immutable once opened; any number of workers run it at
 * once. */
typedef struct vd_product vd_product;

/* Compared as bytes: every member has the same size, so there is no padding. Tensors are dense NHWC. */
typedef struct vd_product_spec {
    int64_t
        taps; /* not 0: a product whose k = taps * channels columns are a kernel's, tap by tap (cpu_taps.c) */
    int64_t matrix;     /* a product [n, c] x [k, c]^T; h, w, oh, ow, kernel and padding are not used then */
    int64_t n, h, w, c; /* input */
    int64_t oh, ow, k;  /* output */
    int64_t kh, kw, stride;
    int64_t pad_top, pad_left, pad_bottom, pad_right;
    int64_t in,
        out; /* vd_dtype: VD_F32, or VD_BF16 where vd_library_compute_type says so; weights are as `in` */
    int64_t bias, add; /* + bias; dst += instead of dst = */
    /* takes the weights as this one has packed them; NULL: the best for this one alone */
    const vd_product *like;
} vd_product_spec;

typedef struct vd_product_list {
    vd_product **items;
    int count, capacity;
} vd_product_list;

typedef struct vd_constant_list {
    vd_cpu_constant **items;
    int count, capacity;
    size_t bytes;
} vd_constant_list;

struct vd_cpu_library {
    const vd_kernels *kernels;
    struct dnnl_engine *engine;
    bool fast_bf16;             /* bf16 products beat fp32 ones here */
    pthread_mutex_t mutex;      /* guards the lists; never held during calls into oneDNN */
    vd_product_list products;   /* cpu_dnnl.c */
    vd_constant_list constants; /* cpu_weights.c */
};

/* The type that products of a program of storage type `dtype` take; sums are fp32 in any case. */
vd_dtype vd_library_compute_type(const vd_cpu_library *l, vd_dtype dtype);

/* cpu_dnnl.c. Products are described once per spec, which tells their sizes and the kernel; the kernel's code
 * is generated when they are loaded, once, before the first run. Threads that ask for different ones do not
 * wait for each other. */
vd_code vd_product_open(vd_cpu_library *l, const vd_product_spec *spec, vd_product **out, vd_error *err);
vd_code vd_product_load(vd_product *p, vd_error *err);
void vd_product_list_close(vd_product_list *list);
size_t vd_product_scratch(const vd_product *p);      /* bytes; 64-byte aligned */
size_t vd_product_weight_bytes(const vd_product *p); /* packed */
bool vd_product_same_weights(const vd_product *a, const vd_product *b);
/* Packs weights given row-major in fp32. */
vd_code vd_product_pack(const vd_cpu_library *l, const vd_product *p, const float *plain, void *packed,
                        vd_error *err);
/* `bias` [k] when the spec has one. */
vd_code vd_product_run(const vd_product *p, vd_cpu_worker *w, const void *src, const void *weights,
                       const float *bias, void *dst, void *scratch, vd_error *err);

/* cpu_weights.c. The weights of a product, rounded to `storage` first and then packed. */
vd_code vd_cpu_constant_plan_packed(vd_cpu_library *l, const vd_constant *c, vd_dtype storage,
                                    const vd_product *layout, vd_cpu_constant **out, vd_error *err);
void vd_constant_list_close(vd_constant_list *list);

/* Makes room for one more item in a list of pointers. Under the library's mutex. */
vd_code vd_list_grow(void **items, int count, int *capacity, vd_error *err);

#endif
