#include "model/weights.h"

#include "base/hash.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* `runs` runs of `count` elements of a tensor, `stride` apart, one after the other into a constant from
 * element `at`. Compared as bytes: no padding. */
typedef struct piece {
    vd_tensor_ref source;
    int64_t first, count, stride, runs;
    int64_t at;
    float scale;
    uint32_t adds; /* to what earlier pieces have put there */
} piece;

typedef struct recipe {
    vd_constant constant; /* first: what programs hold */
    uint64_t key;         /* of the pieces */
    int count;
    piece pieces[];
} recipe;

struct vd_weights {
    vd_store *store;
    recipe **recipes;
    int count, capacity;
    vd_error error; /* the first failure */
};

vd_name vd_name_in(vd_name outer, const char *format, ...) {
    size_t length = strlen(outer.text);
    va_list args;
    va_start(args, format);
    vsnprintf(outer.text + length, sizeof outer.text - length, format, args);
    va_end(args);
    return outer;
}

vd_weights *vd_weights_new(vd_store *store) {
    vd_weights *w = calloc(1, sizeof *w);
    if (w)
        w->store = store;
    return w;
}

void vd_weights_free(vd_weights *w) {
    if (!w)
        return;
    for (int i = 0; i < w->count; i++)
        free(w->recipes[i]);
    free(w->recipes);
    free(w);
}

vd_code vd_weights_error(const vd_weights *w, vd_error *err) {
    if (w->error.code)
        *err = w->error;
    return w->error.code;
}

bool vd_weights_has(const vd_weights *w, vd_name name) {
    return vd_store_has(w->store, name.text);
}

/* ---- filling ---- */

static vd_code put_run(const piece *p, int64_t first, float *out, vd_error *err) {
    VD_TRY(vd_safetensors_read_f32(p->source.file, p->source.tensor, first, p->count, out, err));
    for (int64_t i = 0; p->scale != 1 && i < p->count; i++)
        out[i] *= p->scale;
    return VD_OK;
}

static vd_code add_run(const piece *p, int64_t first, float *out, vd_error *err) {
    enum { CHUNK = 2048 };
    float more[CHUNK];
    for (int64_t done = 0; done < p->count; done += CHUNK) {
        int64_t count = p->count - done < CHUNK ? p->count - done : CHUNK;
        VD_TRY(vd_safetensors_read_f32(p->source.file, p->source.tensor, first + done, count, more, err));
        for (int64_t i = 0; i < count; i++)
            out[done + i] += p->scale * more[i];
    }
    return VD_OK;
}

static vd_code fill(const vd_constant *self, float *out, vd_error *err) {
    const recipe *r = (const recipe *)self;
    for (const piece *p = r->pieces; p < r->pieces + r->count; p++)
        for (int64_t run = 0; run < p->runs; run++) {
            int64_t first = p->first + run * p->stride;
            float *to = out + p->at + run * p->count;
            VD_TRY(p->adds ? add_run(p, first, to, err) : put_run(p, first, to, err));
        }
    return VD_OK;
}

/* ---- building ---- */

static int64_t product(const int64_t *dims, int count) {
    int64_t all = 1;
    for (int i = 0; i < count; i++)
        all *= dims[i];
    return all;
}

static int rank_of(const vd_part *part) {
    int rank = 0;
    while (rank < VD_PART_RANK && part->dims[rank])
        rank++;
    return rank;
}

/* Finds the tensor and turns rows and columns into runs. `filled`: elements of the constant that earlier
 * parts fill. */
static vd_code resolve(vd_weights *w, const vd_part *part, const int64_t dims[4], int64_t *filled,
                       piece *out) {
    int rank = rank_of(part);
    VD_TRY(vd_store_find(w->store, part->name.text, rank, part->dims, &out->source, &w->error));
    int64_t row = product(part->dims + 1, rank - 1);
    int64_t rows = part->rows ? part->rows : part->dims[0];
    out->runs = 1;
    out->count = rows * row;
    if (part->columns) {
        int64_t column = row / part->dims[1];
        out->first = part->column * column;
        out->count = part->columns * column;
        out->stride = row;
        out->runs = rows;
    }
    out->at = part->at * product(dims + 1, 3);
    out->scale = part->scale;
    out->adds = out->at < *filled;
    int64_t end = out->at + out->runs * out->count;
    if (rows > part->dims[0] || (part->columns && part->column + part->columns > part->dims[1]) ||
        out->at > *filled || (out->adds && end > *filled))
        return vd_fail(&w->error, VD_ERR_INTERNAL, "constant '%s': this part leaves its tensor or its place",
                       part->name.text);
    if (!out->adds)
        *filled = end;
    return VD_OK;
}

static vd_code resolve_all(vd_weights *w, recipe *r, const vd_part *parts) {
    int64_t filled = 0, total = product(r->constant.dims, 4);
    for (int i = 0; i < r->count; i++)
        VD_TRY(resolve(w, &parts[i], r->constant.dims, &filled, &r->pieces[i]));
    if (filled != total)
        return vd_fail(&w->error, VD_ERR_INTERNAL, "constant '%s': parts fill %lld of %lld elements",
                       parts[0].name.text, (long long)filled, (long long)total);
    r->constant.name = r->pieces[0].source.tensor->name;
    r->key = vd_hash64(r->pieces, (size_t)r->count * sizeof *r->pieces);
    return VD_OK;
}

static bool equal(const recipe *a, const recipe *b) {
    return a->key == b->key && a->count == b->count &&
           memcmp(a->constant.dims, b->constant.dims, sizeof a->constant.dims) == 0 &&
           memcmp(a->pieces, b->pieces, (size_t)a->count * sizeof *a->pieces) == 0;
}

/* Takes `made` over: keeps it, or frees it for an equal one that is there already. */
static const vd_constant *keep(vd_weights *w, recipe *made) {
    for (int i = 0; i < w->count; i++)
        if (equal(w->recipes[i], made)) {
            free(made);
            return &w->recipes[i]->constant;
        }
    if (w->count == w->capacity) {
        int wider = w->capacity ? 2 * w->capacity : 256;
        recipe **more = realloc(w->recipes, (size_t)wider * sizeof *more);
        if (!more) {
            vd_fail_memory(&w->error, "the list of weights", (unsigned long long)wider * sizeof *more);
            free(made);
            return NULL;
        }
        w->recipes = more;
        w->capacity = wider;
    }
    w->recipes[w->count++] = made;
    return &made->constant;
}

const vd_constant *vd_weights_constant(vd_weights *w, const int64_t dims[4], const vd_part *parts,
                                       int count) {
    if (w->error.code)
        return NULL;
    size_t bytes = sizeof(recipe) + (size_t)count * sizeof(piece);
    recipe *made = calloc(1, bytes);
    if (!made) {
        vd_fail_memory(&w->error, "a weight's recipe", bytes);
        return NULL;
    }
    memcpy(made->constant.dims, dims, sizeof made->constant.dims);
    made->constant.fill = fill;
    made->count = count;
    if (resolve_all(w, made, parts) != VD_OK) {
        free(made);
        return NULL;
    }
    return keep(w, made);
}

const vd_constant *vd_weights_vector(vd_weights *w, vd_name name, int64_t count) {
    return vd_weights_constant(w, (int64_t[4]){count, 1, 1, 1}, &VD_PART(.name = name, .dims = {count}), 1);
}

const vd_constant *vd_weights_matrix(vd_weights *w, vd_name name, int64_t out, int64_t in) {
    return vd_weights_constant(w, (int64_t[4]){out, in, 1, 1}, &VD_PART(.name = name, .dims = {out, in}), 1);
}

const vd_constant *vd_weights_kernel(vd_weights *w, vd_name name, int64_t out, int64_t in, int64_t size) {
    return vd_weights_constant(w, (int64_t[4]){out, in, size, size},
                               &VD_PART(.name = name, .dims = {out, in, size, size}), 1);
}

float vd_weights_mix(vd_weights *w, vd_name name) {
    vd_tensor_ref found;
    float raw = 0;
    if (w->error.code || vd_store_find(w->store, name.text, 1, (int64_t[]){1}, &found, &w->error) != VD_OK ||
        vd_safetensors_read_f32(found.file, found.tensor, 0, 1, &raw, &w->error) != VD_OK)
        return 0;
    return 1 / (1 + expf(-raw));
}
