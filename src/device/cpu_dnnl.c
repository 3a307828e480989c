/* The only file that knows oneDNN. Its v2 and v3 interfaces differ in how descriptors are made; everything
 * else is the same. Rules that keep it fit for many stages in one process: one OpenMP thread on every thread
 * that creates or executes, scratch given by the caller, a stream per worker. */
#include "device/cpu_library.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t desc_ref;
#else
typedef const dnnl_memory_desc_t *desc_ref;
#endif

struct vd_product {
    vd_product_spec spec;
    pthread_mutex_t mutex; /* held by the thread that makes it */
    _Atomic bool ready;
    dnnl_primitive_desc_t pd; /* owns the descriptions below */
    dnnl_primitive_t primitive;
    desc_ref src, weights, bias, dst, scratch;
    char label[160];
};

struct vd_cpu_worker {
    dnnl_stream_t stream;
};

static vd_code check(dnnl_status_t status, const char *call, const char *label, vd_error *err) {
    if (status == dnnl_success)
        return VD_OK;
    if (status == dnnl_out_of_memory)
        return vd_fail(err, VD_ERR_UNAVAILABLE, "out of memory in oneDNN's %s for %s", call, label);
    return vd_fail(err, VD_ERR_INTERNAL, "oneDNN's %s failed with status %d for %s", call, (int)status,
                   label);
}

/* ---- the parts that differ between the two interfaces ---- */

typedef struct product_descs {
    dnnl_memory_desc_t src, weights, bias, dst;
} product_descs;

#if DNNL_VERSION_MAJOR >= 3

static dnnl_status_t make_desc(dnnl_memory_desc_t *d, int rank, const dnnl_dims_t dims, dnnl_data_type_t type,
                               dnnl_format_tag_t tag) {
    return dnnl_memory_desc_create_with_tag(d, rank, dims, type, tag);
}

static dnnl_status_t copy_desc(dnnl_memory_desc_t *d, desc_ref from) {
    return dnnl_memory_desc_clone(d, from);
}

static void free_desc(dnnl_memory_desc_t *d) {
    dnnl_memory_desc_destroy(*d);
}

static dnnl_status_t append_sum(dnnl_post_ops_t ops) {
    return dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef);
}

static dnnl_status_t make_primitive_desc(dnnl_primitive_desc_t *pd, const vd_product_spec *s,
                                         const product_descs *d, dnnl_primitive_attr_t attr,
                                         dnnl_engine_t engine) {
    dnnl_memory_desc_t bias = s->bias ? d->bias : NULL;
    if (s->matrix)
        return dnnl_matmul_primitive_desc_create(pd, engine, d->src, d->weights, bias, d->dst, attr);
    const dnnl_dims_t strides = {s->stride, s->stride}, dilation = {0, 0};
    const dnnl_dims_t before = {s->pad_top, s->pad_left}, after = {s->pad_bottom, s->pad_right};
    return dnnl_convolution_forward_primitive_desc_create(pd, engine, dnnl_forward_inference,
                                                          dnnl_convolution_direct, d->src, d->weights, bias,
                                                          d->dst, strides, dilation, before, after, attr);
}

#else

static dnnl_status_t make_desc(dnnl_memory_desc_t *d, int rank, const dnnl_dims_t dims, dnnl_data_type_t type,
                               dnnl_format_tag_t tag) {
    return dnnl_memory_desc_init_by_tag(d, rank, dims, type, tag);
}

static dnnl_status_t copy_desc(dnnl_memory_desc_t *d, desc_ref from) {
    *d = *from;
    return dnnl_success;
}

static void free_desc(dnnl_memory_desc_t *d) {
    (void)d; /* a plain struct */
}

static dnnl_status_t append_sum(dnnl_post_ops_t ops) {
    return dnnl_post_ops_append_sum(ops, 1.0f);
}

static dnnl_status_t make_primitive_desc(dnnl_primitive_desc_t *pd, const vd_product_spec *s,
                                         const product_descs *d, dnnl_primitive_attr_t attr,
                                         dnnl_engine_t engine) {
    const dnnl_memory_desc_t *bias = s->bias ? &d->bias : NULL;
    dnnl_status_t status;
    if (s->matrix) {
        dnnl_matmul_desc_t op;
        status = dnnl_matmul_desc_init(&op, &d->src, &d->weights, bias, &d->dst);
        return status ? status : dnnl_primitive_desc_create(pd, &op, attr, engine, NULL);
    }
    const dnnl_dims_t strides = {s->stride, s->stride};
    const dnnl_dims_t before = {s->pad_top, s->pad_left}, after = {s->pad_bottom, s->pad_right};
    dnnl_convolution_desc_t op;
    status = dnnl_convolution_forward_desc_init(&op, dnnl_forward_inference, dnnl_convolution_direct, &d->src,
                                                &d->weights, bias, &d->dst, strides, before, after);
    return status ? status : dnnl_primitive_desc_create(pd, &op, attr, engine, NULL);
}

#endif

/* ---- products ---- */

static dnnl_data_type_t type_of(int64_t dtype) {
    return dtype == VD_BF16 ? dnnl_bf16 : dnnl_f32;
}

/* Matrix weights are described as [c, k] with c running fastest, which is the [k, c] of the constant. */
static dnnl_status_t make_plain_weights(dnnl_memory_desc_t *d, const vd_product_spec *s) {
    if (s->matrix)
        return make_desc(d, 2, (dnnl_dims_t){s->c, s->k}, dnnl_f32, dnnl_ba);
    return make_desc(d, 4, (dnnl_dims_t){s->k, s->c, s->kh, s->kw}, dnnl_f32, dnnl_oihw);
}

static dnnl_status_t make_weights(dnnl_memory_desc_t *d, const vd_product_spec *s) {
    if (s->like)
        return copy_desc(d, s->like->weights);
    if (s->matrix)
        return make_desc(d, 2, (dnnl_dims_t){s->c, s->k}, type_of(s->in), dnnl_format_tag_any);
    return make_desc(d, 4, (dnnl_dims_t){s->k, s->c, s->kh, s->kw}, type_of(s->in), dnnl_format_tag_any);
}

static dnnl_status_t make_descs(product_descs *d, const vd_product_spec *s) {
    dnnl_status_t status = make_weights(&d->weights, s);
    if (s->matrix) {
        status = status ? status : make_desc(&d->src, 2, (dnnl_dims_t){s->n, s->c}, type_of(s->in), dnnl_ab);
        status = status ? status : make_desc(&d->bias, 2, (dnnl_dims_t){1, s->k}, dnnl_f32, dnnl_ab);
        return status ? status : make_desc(&d->dst, 2, (dnnl_dims_t){s->n, s->k}, type_of(s->out), dnnl_ab);
    }
    const dnnl_dims_t in = {s->n, s->c, s->h, s->w}, out = {s->n, s->k, s->oh, s->ow};
    status = status ? status : make_desc(&d->src, 4, in, type_of(s->in), dnnl_nhwc);
    status = status ? status : make_desc(&d->bias, 1, (dnnl_dims_t){s->k}, dnnl_f32, dnnl_x);
    return status ? status : make_desc(&d->dst, 4, out, type_of(s->out), dnnl_nhwc);
}

static dnnl_status_t make_attributes(dnnl_primitive_attr_t *attr, bool add) {
    dnnl_status_t status = dnnl_primitive_attr_create(attr);
    if (status)
        return status;
    status = dnnl_primitive_attr_set_scratchpad_mode(*attr, dnnl_scratchpad_mode_user);
    if (status || !add)
        return status;
    dnnl_post_ops_t ops = NULL;
    status = dnnl_post_ops_create(&ops);
    status = status ? status : append_sum(ops);
    status = status ? status : dnnl_primitive_attr_set_post_ops(*attr, ops);
    dnnl_post_ops_destroy(ops);
    return status;
}

static dnnl_status_t describe(vd_product *p, dnnl_engine_t engine) {
    product_descs d = {0};
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t status = make_descs(&d, &p->spec);
    status = status ? status : make_attributes(&attr, p->spec.add);
    status = status ? status : make_primitive_desc(&p->pd, &p->spec, &d, attr, engine);
    dnnl_primitive_attr_destroy(attr);
    free_desc(&d.src);
    free_desc(&d.weights);
    free_desc(&d.bias);
    free_desc(&d.dst);
    return status;
}

static int write_label(vd_product *p) {
    const vd_product_spec *s = &p->spec;
    const char *types[] = {s->in == VD_BF16 ? "bf16" : "fp32", s->out == VD_BF16 ? "bf16" : "fp32"};
    const char *extra = s->bias ? s->add ? " +bias +sum" : " +bias" : s->add ? " +sum" : "";
    if (s->matrix)
        return snprintf(p->label, sizeof p->label, "product %lldx%lld->%lld %s->%s%s", (long long)s->n,
                        (long long)s->c, (long long)s->k, types[0], types[1], extra);
    return snprintf(p->label, sizeof p->label,
                    "conv %lldx%lldx%lldx%lld->%lldx%lldx%lld %lldx%lld/%lld %s->%s%s", (long long)s->n,
                    (long long)s->h, (long long)s->w, (long long)s->c, (long long)s->oh, (long long)s->ow,
                    (long long)s->k, (long long)s->kh, (long long)s->kw, (long long)s->stride, types[0],
                    types[1], extra);
}

static vd_code describe_product(vd_product *p, dnnl_engine_t engine, vd_error *err) {
    omp_set_num_threads(1);
    int length = write_label(p);
    VD_TRY(check(describe(p, engine), "primitive description", p->label, err));
    p->src = dnnl_primitive_desc_query_md(p->pd, dnnl_query_src_md, 0);
    p->weights = dnnl_primitive_desc_query_md(p->pd, dnnl_query_weights_md, 0);
    p->bias = dnnl_primitive_desc_query_md(p->pd, dnnl_query_weights_md, 1);
    p->dst = dnnl_primitive_desc_query_md(p->pd, dnnl_query_dst_md, 0);
    p->scratch = dnnl_primitive_desc_query_md(p->pd, dnnl_query_scratchpad_md, 0);
    const char *name = NULL;
    dnnl_status_t status = dnnl_primitive_desc_query(p->pd, dnnl_query_impl_info_str, 0, (void *)&name);
    VD_TRY(check(status, "implementation name", p->label, err));
    snprintf(p->label + length, sizeof p->label - (size_t)length, ": %s", name);
    return VD_OK;
}

static vd_code find_or_add(vd_cpu_library *l, const vd_product_spec *spec, vd_product **out, vd_error *err) {
    vd_product_list *list = &l->products;
    for (int i = 0; i < list->count; i++)
        if (!memcmp(&list->items[i]->spec, spec, sizeof *spec)) {
            *out = list->items[i];
            return VD_OK;
        }
    VD_TRY(vd_list_grow((void **)&list->items, list->count, &list->capacity, err));
    vd_product *p = calloc(1, sizeof *p);
    if (!p)
        return vd_fail_memory(err, "a product", sizeof *p);
    p->spec = *spec;
    pthread_mutex_init(&p->mutex, NULL);
    list->items[list->count++] = p;
    *out = p;
    return VD_OK;
}

vd_code vd_product_open(vd_cpu_library *l, const vd_product_spec *spec, vd_product **out, vd_error *err) {
    vd_product *p = NULL;
    pthread_mutex_lock(&l->mutex);
    vd_code code = find_or_add(l, spec, &p, err);
    pthread_mutex_unlock(&l->mutex);
    if (code != VD_OK)
        return code;
    pthread_mutex_lock(&p->mutex);
    if (!p->ready) {
        code = describe_product(p, l->engine, err);
        p->ready = code == VD_OK;
    }
    pthread_mutex_unlock(&p->mutex);
    *out = p;
    return code;
}

vd_code vd_product_load(vd_product *p, vd_error *err) {
    vd_code code = VD_OK;
    pthread_mutex_lock(&p->mutex);
    if (!p->primitive) {
        omp_set_num_threads(1);
        code = check(dnnl_primitive_create(&p->primitive, p->pd), "primitive", p->label, err);
    }
    pthread_mutex_unlock(&p->mutex);
    return code;
}

void vd_product_list_close(vd_product_list *list) {
    for (int i = 0; i < list->count; i++) {
        vd_product *p = list->items[i];
        if (p->primitive)
            dnnl_primitive_destroy(p->primitive);
        dnnl_primitive_desc_destroy(p->pd);
        pthread_mutex_destroy(&p->mutex);
        free(p);
    }
    free(list->items);
}

size_t vd_product_scratch(const vd_product *p) {
    return dnnl_memory_desc_get_size(p->scratch);
}

size_t vd_product_weight_bytes(const vd_product *p) {
    return dnnl_memory_desc_get_size(p->weights);
}

bool vd_product_same_weights(const vd_product *a, const vd_product *b) {
    return dnnl_memory_desc_equal(a->weights, b->weights);
}

/* ---- running ---- */

enum { MAX_ARGUMENTS = 5 };

typedef struct arguments {
    dnnl_exec_arg_t list[MAX_ARGUMENTS];
    int count;
    dnnl_status_t status;
} arguments;

/* Adds a view of the caller's memory; oneDNN does not write through those that are inputs. */
static void add_argument(arguments *a, int name, desc_ref desc, dnnl_engine_t engine, const void *memory) {
    if (a->status)
        return;
    dnnl_exec_arg_t *argument = &a->list[a->count];
    argument->arg = name;
    a->status = dnnl_memory_create(&argument->memory, desc, engine, (void *)(uintptr_t)memory);
    a->count += !a->status;
}

static dnnl_status_t execute(arguments *a, dnnl_primitive_t primitive, dnnl_stream_t stream) {
    if (!a->status)
        a->status = dnnl_primitive_execute(primitive, stream, a->count, a->list);
    if (!a->status)
        a->status = dnnl_stream_wait(stream);
    for (int i = 0; i < a->count; i++)
        dnnl_memory_destroy(a->list[i].memory);
    return a->status;
}

vd_code vd_product_run(const vd_product *p, vd_cpu_worker *w, const void *src, const void *weights,
                       const float *bias, void *dst, void *scratch, vd_error *err) {
    dnnl_engine_t engine = NULL;
    arguments a = {.status = dnnl_stream_get_engine(w->stream, &engine)};
    add_argument(&a, DNNL_ARG_SRC, p->src, engine, src);
    add_argument(&a, DNNL_ARG_WEIGHTS, p->weights, engine, weights);
    if (p->spec.bias)
        add_argument(&a, DNNL_ARG_BIAS, p->bias, engine, bias);
    add_argument(&a, DNNL_ARG_DST, p->dst, engine, dst);
    add_argument(&a, DNNL_ARG_SCRATCHPAD, p->scratch, engine, scratch);
    return check(execute(&a, p->primitive, w->stream), "execution", p->label, err);
}

static dnnl_status_t reorder(dnnl_engine_t engine, desc_ref from, const void *plain, desc_ref to,
                             void *packed) {
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t primitive = NULL;
    dnnl_stream_t stream = NULL;
    arguments a = {.status = dnnl_reorder_primitive_desc_create(&pd, from, engine, to, engine, NULL)};
    a.status = a.status ? a.status : dnnl_primitive_create(&primitive, pd);
    a.status = a.status ? a.status : dnnl_stream_create(&stream, engine, dnnl_stream_default_flags);
    add_argument(&a, DNNL_ARG_FROM, from, engine, plain);
    add_argument(&a, DNNL_ARG_TO, to, engine, packed);
    dnnl_status_t status = execute(&a, primitive, stream);
    dnnl_stream_destroy(stream);
    dnnl_primitive_destroy(primitive);
    dnnl_primitive_desc_destroy(pd);
    return status;
}

static vd_code pack_plain(const vd_cpu_library *l, const vd_product *p, const float *plain, void *packed,
                          vd_error *err) {
    dnnl_memory_desc_t from = {0};
    dnnl_status_t status = make_plain_weights(&from, &p->spec);
#if DNNL_VERSION_MAJOR >= 3
    desc_ref from_ref = from;
#else
    desc_ref from_ref = &from;
#endif
    status = status ? status : reorder(l->engine, from_ref, plain, p->weights, packed);
    free_desc(&from);
    return check(status, "packing", p->label, err);
}

/* Weights of a convolution [k][c][taps] as rows of a product [taps][k][c]. */
static vd_code pack_taps(const vd_cpu_library *l, const vd_product *p, const float *plain, void *packed,
                         vd_error *err) {
    int64_t taps = p->spec.taps, k = p->spec.k / taps, c = p->spec.c;
    float *rows = malloc((size_t)(taps * k * c) * sizeof *rows);
    if (!rows)
        return vd_fail_memory(err, p->label, (size_t)(taps * k * c) * sizeof *rows);
    for (int64_t t = 0; t < taps; t++)
        for (int64_t i = 0; i < k * c; i++)
            rows[t * k * c + i] = plain[i * taps + t];
    vd_code code = pack_plain(l, p, rows, packed, err);
    free(rows);
    return code;
}

vd_code vd_product_pack(const vd_cpu_library *l, const vd_product *p, const float *plain, void *packed,
                        vd_error *err) {
    omp_set_num_threads(1);
    return p->spec.taps ? pack_taps(l, p, plain, packed, err) : pack_plain(l, p, plain, packed, err);
}

/* ---- library and workers ---- */

/* bf16 storage always sums in fp32; the question is only whether multiplying in bf16 is the faster way. AMX
 * does so, and AMD's dot products; Intel's without AMX are no faster than fp32 and cost conversions. */
static bool bf16_is_fast(void) {
    unsigned isa = (unsigned)dnnl_get_effective_cpu_isa();
    const unsigned bf16 = (unsigned)dnnl_cpu_isa_avx512_core_bf16,
                   amx = (unsigned)dnnl_cpu_isa_avx512_core_amx;
    return (isa & amx) == amx || ((isa & bf16) == bf16 && __builtin_cpu_is("amd"));
}

vd_dtype vd_library_compute_type(const vd_cpu_library *l, vd_dtype dtype) {
    return dtype == VD_BF16 && l->fast_bf16 ? VD_BF16 : VD_F32;
}

vd_code vd_list_grow(void **items, int count, int *capacity, vd_error *err) {
    if (count < *capacity)
        return VD_OK;
    int wanted = *capacity ? 2 * *capacity : 64;
    void *grown = realloc(*items, (size_t)wanted * sizeof(void *));
    if (!grown)
        return vd_fail_memory(err, "a list", (size_t)wanted * sizeof(void *));
    *items = grown;
    *capacity = wanted;
    return VD_OK;
}

vd_code vd_cpu_library_open(vd_cpu_library **out, vd_error *err) {
    vd_cpu_library *l = calloc(1, sizeof *l);
    if (!l)
        return vd_fail_memory(err, "the library of the CPU devices", sizeof *l);
    pthread_mutex_init(&l->mutex, NULL);
    l->kernels = vd_kernels_choose(NULL);
    l->fast_bf16 = bf16_is_fast();
    vd_code code = check(dnnl_engine_create(&l->engine, dnnl_cpu, 0), "engine", "the CPU", err);
    if (code != VD_OK)
        vd_cpu_library_close(l);
    *out = code == VD_OK ? l : NULL;
    return code;
}

void vd_cpu_library_close(vd_cpu_library *l) {
    if (!l)
        return;
    vd_product_list_close(&l->products);
    vd_constant_list_close(&l->constants);
    if (l->engine)
        dnnl_engine_destroy(l->engine);
    pthread_mutex_destroy(&l->mutex);
    free(l);
}

const vd_kernels *vd_cpu_library_kernels(const vd_cpu_library *l) {
    return l->kernels;
}

int vd_cpu_library_kernel_count(const vd_cpu_library *l) {
    return l->products.count;
}

const char *vd_cpu_library_kernel(const vd_cpu_library *l, int index) {
    return l->products.items[index]->label;
}

vd_code vd_cpu_worker_open(vd_cpu_library *library, vd_cpu_worker **out, vd_error *err) {
    omp_set_num_threads(1);
    vd_cpu_worker *w = calloc(1, sizeof *w);
    if (!w)
        return vd_fail_memory(err, "a worker", sizeof *w);
    vd_code code = check(dnnl_stream_create(&w->stream, library->engine, dnnl_stream_default_flags), "stream",
                         "a worker", err);
    if (code != VD_OK) {
        free(w);
        return code;
    }
    *out = w;
    return VD_OK;
}

void vd_cpu_worker_close(vd_cpu_worker *w) {
    if (!w)
        return;
    dnnl_stream_destroy(w->stream);
    free(w);
}
