#include "model/store.h"

#include "base/file.h"
#include "base/json.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    MAX_SHARDS = 256,           /* each is an open file */
    MAX_INDEX_BYTES = 16 << 20, /* a real one is 150 kB */
    MAX_WARNINGS = 5
};

typedef struct entry {
    vd_tensor_ref ref;
    _Atomic bool used;
} entry;

struct vd_store {
    char folder[VD_PATH_CAP];
    vd_safetensors *files[MAX_SHARDS];
    int file_count;
    entry *entries; /* the tensors of all files, sorted by name */
    int count;
};

static int compare_entries(const void *a, const void *b) {
    return strcmp(((const entry *)a)->ref.tensor->name, ((const entry *)b)->ref.tensor->name);
}

static int compare_name(const void *name, const void *e) {
    return strcmp(name, ((const entry *)e)->ref.tensor->name);
}

static entry *find_entry(const vd_store *store, const char *name) {
    return bsearch(name, store->entries, (size_t)store->count, sizeof *store->entries, compare_name);
}

/* Puts the tensors of all files into one sorted list. */
static vd_code merge_files(vd_store *store, vd_error *err) {
    size_t total = 0;
    for (int f = 0; f < store->file_count; f++)
        total += (size_t)vd_safetensors_count(store->files[f]);
    store->entries = calloc(total + 1, sizeof *store->entries);
    if (!store->entries)
        return vd_fail_memory(err, "the list of tensors", total * sizeof *store->entries);
    for (int f = 0; f < store->file_count; f++)
        for (int i = 0; i < vd_safetensors_count(store->files[f]); i++)
            store->entries[store->count++].ref =
                (vd_tensor_ref){store->files[f], vd_safetensors_at(store->files[f], i)};
    qsort(store->entries, total, sizeof *store->entries, compare_entries);
    for (int i = 1; i < store->count; i++)
        if (compare_entries(&store->entries[i - 1], &store->entries[i]) == 0)
            return vd_fail(err, VD_ERR_DATA, "'%s': tensor '%.100s' is also in '%s'",
                           vd_safetensors_path(store->entries[i].ref.file),
                           store->entries[i].ref.tensor->name,
                           vd_safetensors_path(store->entries[i - 1].ref.file));
    return VD_OK;
}

static vd_code open_file(vd_store *store, const char *name, vd_error *err) {
    char path[VD_PATH_CAP];
    if (snprintf(path, sizeof path, "%s/%s", store->folder, name) >= (int)sizeof path)
        return vd_fail(err, VD_ERR_NO_INPUT, "'%.200s...': path too long", store->folder);
    VD_TRY(vd_safetensors_open(path, &store->files[store->file_count], err));
    store->file_count++;
    return VD_OK;
}

/* A shard must lie beside its index: anything but a plain file name could lead out of the folder. */
static bool is_plain_name(const char *name) {
    return *name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* Opens every file that `map` names, once; `shards` collects name -> position in store->files. */
static vd_code open_shards(vd_store *store, const char *index, json_t *map, json_t *shards, vd_error *err) {
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value) {
        const char *name = json_string_value(value);
        if (!name || !is_plain_name(name))
            return vd_fail(err, VD_ERR_DATA,
                           "'%s': tensor '%.100s' lies in '%.100s', which is not a plain file name", index,
                           tensor, name ? name : "(not a string)");
        if (json_object_get(shards, name))
            continue;
        if (store->file_count == MAX_SHARDS)
            return vd_fail(err, VD_ERR_DATA, "'%s': more than %d shards", index, MAX_SHARDS);
        if (json_object_set_new(shards, name, json_integer(store->file_count)) != 0)
            return vd_fail_memory(err, "the list of shards", 0);
        if (open_file(store, name, err) != VD_OK) {
            err->code = VD_ERR_DATA; /* the index is here, so the model is incomplete rather than absent */
            return vd_fail_in(err, "'%s': tensor '%.100s'", index, tensor);
        }
    }
    return VD_OK;
}

static vd_code check_map(const vd_store *store, const char *index, json_t *map, const json_t *shards,
                         vd_error *err) {
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value) {
        const char *name = json_string_value(value);
        const entry *found = find_entry(store, tensor);
        if (!found || found->ref.file != store->files[json_integer_value(json_object_get(shards, name))])
            return vd_fail(err, VD_ERR_DATA, "'%s': tensor '%.100s' is not in '%.100s', where the index says",
                           index, tensor, name);
    }
    return VD_OK;
}

static vd_code open_index(vd_store *store, const char *index, vd_error *err) {
    json_t *root, *shards = json_object();
    vd_code status = vd_json_load(index, MAX_INDEX_BYTES, &root, err);
    json_t *map = status == VD_OK ? json_object_get(root, "weight_map") : NULL;
    if (status == VD_OK && json_object_size(map) == 0)
        status = vd_fail(err, VD_ERR_DATA, "'%s': weight_map is missing or empty", index);
    if (status == VD_OK)
        status = open_shards(store, index, map, shards, err);
    if (status == VD_OK)
        status = merge_files(store, err);
    if (status == VD_OK)
        status = check_map(store, index, map, shards, err);
    json_decref(shards);
    json_decref(root);
    return status;
}

/* Nothing that we read is there: say what else is. */
static vd_code fail_missing(const vd_store *store, const char *stem, vd_error *err) {
    static const char *const unread[] = {"%s/%s.bin", "%s/%s.fp16.bin", "%s/%s.ckpt", "%s/pytorch_%s.bin"};
    char path[VD_PATH_CAP];
    for (size_t i = 0; i < sizeof unread / sizeof *unread; i++) {
        int length = snprintf(path, sizeof path, unread[i], store->folder, stem);
        if (length < (int)sizeof path && access(path, F_OK) == 0)
            return vd_fail(err, VD_ERR_NO_INPUT,
                           "'%s' is a pickle, which may run code when loaded; get '%s.safetensors'", path,
                           stem);
    }
    return vd_fail(err, VD_ERR_NO_INPUT,
                   "'%s': no weights: neither '%s.fp16.safetensors' nor '%s.safetensors' nor an index of "
                   "shards is there",
                   store->folder, stem, stem);
}

static vd_code open_component(vd_store *store, const char *stem, vd_error *err) {
    static const struct {
        const char *format;
        bool is_index;
    } forms[] = {
        {"%s.fp16.safetensors", false},           {"%s.safetensors.index.fp16.json", true},
        {"%s.safetensors.fp16.index.json", true}, {"%s.safetensors", false},
        {"%s.safetensors.index.json", true},
    };
    char name[256], path[VD_PATH_CAP + sizeof name];
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        snprintf(name, sizeof name, forms[i].format, stem);
        snprintf(path, sizeof path, "%s/%s", store->folder, name);
        if (access(path, F_OK) != 0)
            continue;
        if (forms[i].is_index)
            return open_index(store, path, err);
        VD_TRY(open_file(store, name, err));
        return merge_files(store, err);
    }
    return fail_missing(store, stem, err);
}

vd_code vd_store_open(const char *folder, const char *stem, vd_store **out, vd_error *err) {
    vd_store *store = calloc(1, sizeof *store);
    if (!store)
        return vd_fail_memory(err, "a model", sizeof *store);
    vd_code status = snprintf(store->folder, sizeof store->folder, "%s", folder) < (int)sizeof store->folder
                         ? open_component(store, stem, err)
                         : vd_fail(err, VD_ERR_NO_INPUT, "'%.200s...': path too long", folder);
    if (status != VD_OK)
        vd_store_close(store);
    else
        *out = store;
    return status;
}

void vd_store_close(vd_store *store) {
    if (!store)
        return;
    for (int f = 0; f < store->file_count; f++)
        vd_safetensors_close(store->files[f]);
    free(store->entries);
    free(store);
}

/* Attention of old VAE files calls its projections otherwise (svd-spec.md 3.1). */
static entry *find_alias(const vd_store *store, const char *name) {
    static const char *const aliases[][2] = {
        {".to_q.", ".query."}, {".to_k.", ".key."}, {".to_v.", ".value."}, {".to_out.0.", ".proj_attn."}};
    char old[512];
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++) {
        const char *at = strstr(name, aliases[i][0]);
        if (at && snprintf(old, sizeof old, "%.*s%s%s", (int)(at - name), name, aliases[i][1],
                           at + strlen(aliases[i][0])) < (int)sizeof old)
            return find_entry(store, old);
    }
    return NULL;
}

static entry *find(const vd_store *store, const char *name) {
    entry *found = find_entry(store, name);
    return found ? found : find_alias(store, name);
}

/* A single value may be stored with rank 0 or as [1]. */
static bool same_shape(const vd_st_tensor *t, int rank, const int64_t *dims) {
    bool one = rank == 0 || (rank == 1 && dims[0] == 1);
    if (one && t->rank < 2)
        return t->rank == 0 || t->dims[0] == 1;
    return t->rank == rank && (rank == 0 || memcmp(t->dims, dims, (size_t)rank * sizeof *dims) == 0);
}

/* "[320, 8, 3, 3]" */
static const char *print_shape(char *out, size_t cap, int rank, const int64_t *dims) {
    size_t n = (size_t)snprintf(out, cap, "[");
    for (int i = 0; i < rank && n < cap; i++)
        n += (size_t)snprintf(out + n, cap - n, "%s%lld", i ? ", " : "", (long long)dims[i]);
    if (n < cap)
        snprintf(out + n, cap - n, "]");
    return out;
}

vd_code vd_store_find(vd_store *store, const char *name, int rank, const int64_t *dims, vd_tensor_ref *out,
                      vd_error *err) {
    char expected[200], has[200];
    entry *found = find(store, name);
    if (!found)
        return vd_fail(err, VD_ERR_DATA, "'%s': tensor '%.200s' is missing", store->folder, name);
    const vd_st_tensor *t = found->ref.tensor;
    if (!same_shape(t, rank, dims))
        return vd_fail(err, VD_ERR_DATA, "'%s': tensor '%.200s' has shape %s, the configuration needs %s",
                       vd_safetensors_path(found->ref.file), t->name,
                       print_shape(has, sizeof has, t->rank, t->dims),
                       print_shape(expected, sizeof expected, rank, dims));
    atomic_store_explicit(&found->used, true, memory_order_relaxed);
    *out = found->ref;
    return VD_OK;
}

bool vd_store_has(const vd_store *store, const char *name) {
    return find(store, name) != NULL;
}

/* Tensors that real files carry and that never influence a result: queries, keys and norm of a cross
 * attention with one key (svd-spec.md 7.11), and what a decoder with 1 or 3 layers leaves aside (9.2). */
static bool is_known_unused(const char *name) {
    static const char *const parts[][2] = {
        {"vision_model.embeddings.position_ids", ""}, {"transformer_blocks.", ".attn2.to_q."},
        {"transformer_blocks.", ".attn2.to_k."},      {"transformer_blocks.", ".norm2."},
        {"decoder.mid_block.attentions.", ""},        {"decoder.mid_block.resnets.", ""},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(name, parts[i][0]) && strstr(name, parts[i][1]))
            return true;
    return false;
}

void vd_store_warn_unused(const vd_store *store, const vd_log *log) {
    int unused = 0;
    for (int i = 0; i < store->count; i++) {
        const entry *e = &store->entries[i];
        if (atomic_load_explicit(&e->used, memory_order_relaxed) || is_known_unused(e->ref.tensor->name))
            continue;
        if (++unused <= MAX_WARNINGS)
            vd_log_line(log, VD_LOG_WARNING, "'%s': tensor '%.100s' is not part of the model, ignored",
                        vd_safetensors_path(e->ref.file), e->ref.tensor->name);
    }
    if (unused > MAX_WARNINGS)
        vd_log_line(log, VD_LOG_WARNING, "'%s': %d more tensors ignored", store->folder,
                    unused - MAX_WARNINGS);
}
