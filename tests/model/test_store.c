/* Components in every form that the reference's tools write, and the ones they never would. */
#include "model/folder.h"
#include "model/store.h"

#include <pthread.h>

enum { LINES = 16 };

typedef struct lines {
    char text[LINES][512];
    int count;
} lines;

static void keep_line(void *user, vd_log_level level, const char *line) {
    lines *kept = user;
    assert_int_equal(level, VD_LOG_WARNING);
    assert_true(kept->count < LINES);
    snprintf(kept->text[kept->count++], sizeof kept->text[0], "%s", line);
}

/* A weight file with one value, [3], in each of the named tensors ("a b c"). */
static void put(const folder *f, const char *file, const char *names, float value) {
    char list[1024], *rest = list, *name;
    const float data[3] = {value, value, value};
    vd_st_out out[16];
    int count = 0;
    snprintf(list, sizeof list, "%s", names);
    while ((name = strsep(&rest, " ")))
        out[count++] = (vd_st_out){.name = name, .dtype = VD_ST_F32, .rank = 1, .dims = {3}, .data = data};
    vd_error err;
    if (vd_safetensors_write(folder_path(f, file), out, count, true, &err) != VD_OK)
        fail_msg("%s", err.message);
}

static vd_store *open_store(const folder *f, const char *stem) {
    vd_error err;
    vd_store *store = NULL;
    if (vd_store_open(f->path, stem, &store, &err) != VD_OK)
        fail_msg("%s", err.message);
    return store;
}

/* The first value of tensor `name`. */
static float value_of(vd_store *store, const char *name) {
    const int64_t dims[] = {3};
    vd_tensor_ref ref;
    vd_error err;
    float value;
    if (vd_store_find(store, name, 1, dims, &ref, &err) != VD_OK ||
        vd_safetensors_read_f32(ref.file, ref.tensor, 0, 1, &value, &err) != VD_OK)
        fail_msg("%s", err.message);
    return value;
}

#define INDEX(map) "{\"metadata\":{\"total_size\":24},\"weight_map\":{" map "}}"

/* Shards of each naming, and which file wins when several are there. */
static void test_forms(void **state) {
    (void)state;
    static const struct {
        const char *stem, *index, *first, *second;
    } forms[] = {
        {"diffusion_pytorch_model", "diffusion_pytorch_model.safetensors.index.json",
         "diffusion_pytorch_model-00001-of-00002.safetensors",
         "diffusion_pytorch_model-00002-of-00002.safetensors"},
        {"diffusion_pytorch_model", "diffusion_pytorch_model.safetensors.index.fp16.json",
         "diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
         "diffusion_pytorch_model.fp16-00002-of-00002.safetensors"},
        {"diffusion_pytorch_model", "diffusion_pytorch_model.safetensors.fp16.index.json",
         "diffusion_pytorch_model-00001-of-00002.fp16.safetensors",
         "diffusion_pytorch_model-00002-of-00002.fp16.safetensors"},
        {"model", "model.safetensors.index.json", "model-00001-of-00002.safetensors",
         "model-00002-of-00002.safetensors"},
        {"model", "model.safetensors.index.fp16.json", "model.fp16-00001-of-00002.safetensors",
         "model.fp16-00002-of-00002.safetensors"},
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        folder f = folder_make();
        char index[512];
        snprintf(index, sizeof index, INDEX("\"b\":\"%s\",\"a\":\"%s\",\"c\":\"%s\""), forms[i].second,
                 forms[i].first, forms[i].second);
        put(&f, forms[i].first, "a", 1);
        put(&f, forms[i].second, "b c", 2);
        folder_text(&f, forms[i].index, index);
        vd_store *store = open_store(&f, forms[i].stem);
        assert_true(value_of(store, "a") == 1 && value_of(store, "b") == 2 && value_of(store, "c") == 2);
        assert_false(vd_store_has(store, "d"));
        vd_store_close(store);
        folder_remove(&f);
    }
}

static void test_preference(void **state) {
    (void)state;
    static const struct {
        const char *file;
        const char *index; /* of that file; NULL: it is a single file */
    } order[] = {
        /* from the least preferred to the most */
        {"s1.safetensors", "model.safetensors.index.json"},
        {"model.safetensors", NULL},
        {"s2.safetensors", "model.safetensors.fp16.index.json"},
        {"s3.safetensors", "model.safetensors.index.fp16.json"},
        {"model.fp16.safetensors", NULL},
    };
    folder f = folder_make();
    for (int i = 0; i < 5; i++) {
        char index[256];
        put(&f, order[i].file, "a", (float)i);
        snprintf(index, sizeof index, INDEX("\"a\":\"%s\""), order[i].file);
        if (order[i].index)
            folder_text(&f, order[i].index, index);
        vd_store *store = open_store(&f, "model");
        assert_true(value_of(store, "a") == (float)i);
        vd_store_close(store);
    }
    folder_remove(&f);
}

/* The hub's cache holds links into another folder. */
static void test_links(void **state) {
    (void)state;
    folder f = folder_make(), blobs = folder_make();
    put(&blobs, "1f00", "a", 5);
    assert_int_equal(symlink(folder_path(&blobs, "1f00"), folder_path(&f, "model.safetensors")), 0);
    vd_store *store = open_store(&f, "model");
    assert_true(value_of(store, "a") == 5);
    vd_store_close(store);
    folder_remove(&f);
    folder_remove(&blobs);
}

static void refuse(const folder *f, const char *label, vd_code expected, const char *thing,
                   const char *reason) {
    vd_error err = {0};
    vd_store *store = NULL;
    double start = cpu_seconds();
    vd_code code = vd_store_open(f->path, "model", &store, &err);
    check_refusal(label, code, expected, &err, thing, reason, cpu_seconds() - start);
}

static void test_bad_indices(void **state) {
    (void)state;
    static const struct {
        const char *json, *thing, *reason;
    } cases[] = {
        {"", "index.json", "not valid JSON"},
        {"[]", "index.json", "weight_map is missing"},
        {"{}", "index.json", "weight_map is missing"},
        {"{\"weight_map\":[]}", "index.json", "weight_map is missing"},
        {INDEX(""), "index.json", "missing or empty"},
        {INDEX("\"a\":1"), "tensor 'a'", "not a plain file name"},
        {INDEX("\"a\":\"\""), "tensor 'a'", "not a plain file name"},
        {INDEX("\"a\":\".\""), "tensor 'a'", "not a plain file name"},
        {INDEX("\"a\":\"..\""), "tensor 'a'", "not a plain file name"},
        {INDEX("\"a\":\"../one\""), "'../one'", "not a plain file name"},
        {INDEX("\"a\":\"/etc/passwd\""), "'/etc/passwd'", "not a plain file name"},
        {INDEX("\"a\":\"x/one\""), "'x/one'", "not a plain file name"},
        {INDEX("\"a\":\"one\\u0000\""), "index.json", "not valid JSON"},
        {INDEX("\"a\":\"one\",\"a\":\"one\""), "index.json", "duplicate"},
        {INDEX("\"a\":\"absent\""), "tensor 'a'", "No such file"},
        {INDEX("\"a\":\"one\",\"x\":\"one\""), "tensor 'x'", "is not in 'one'"},
        {INDEX("\"a\":\"one\",\"b\":\"one\",\"c\":\"two\""), "tensor 'b'", "is not in 'one'"},
        {INDEX("\"a\":\"one\",\"d\":\"same\""), "tensor 'a'", "is also in"},
        {INDEX("\"a\":\"pickle\""), "pickle'", "a pickle"},
        {INDEX("\"a\\n\\u001b[2J\":\"..\""), "\\x1b[2J", "not a plain file name"},
    };
    folder f = folder_make();
    put(&f, "one", "a", 1);
    put(&f, "two", "b c", 1);
    put(&f, "same", "a d", 1);
    folder_write(&f, "pickle", "\x80\2}q\0.", 7);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        folder_text(&f, "model.safetensors.index.json", cases[i].json);
        refuse(&f, cases[i].json, VD_ERR_DATA, cases[i].thing, cases[i].reason);
    }
    folder_remove(&f);
}

static void test_too_many_shards(void **state) {
    (void)state;
    folder f = folder_make();
    char index[32768] = "{\"weight_map\":{", name[16];
    for (int i = 0; i < 257; i++) {
        snprintf(name, sizeof name, "s%d", i);
        put(&f, name, name, 1);
        snprintf(index + strlen(index), 64, "%s\"%s\":\"%s\"", i ? "," : "", name, name);
    }
    strcat(index, "}}");
    folder_text(&f, "model.safetensors.index.json", index);
    refuse(&f, "257 shards", VD_ERR_DATA, "index.json", "more than 256 shards");
    folder_remove(&f);
}

static void test_absent(void **state) {
    (void)state;
    folder f = folder_make();
    refuse(&f, "empty folder", VD_ERR_NO_INPUT, f.path, "no weights");
    folder_text(&f, "pytorch_model.bin", "PK");
    refuse(&f, "pickle only", VD_ERR_NO_INPUT, "pytorch_model.bin", "is a pickle");
    folder_text(&f, "model.safetensors", "<html>");
    refuse(&f, "error page", VD_ERR_DATA, "model.safetensors", "an HTML page");
    folder_remove(&f);
    refuse(&f, "no folder", VD_ERR_NO_INPUT, f.path, "no weights");
}

static void test_shapes(void **state) {
    (void)state;
    folder f = folder_make();
    const float data[6] = {0};
    const vd_st_out out[] = {{"w", VD_ST_F32, 2, {2, 3}, data},
                             {"scalar", VD_ST_F32, 0, {0}, data},
                             {"one", VD_ST_F32, 1, {1}, data},
                             {"m.query.weight", VD_ST_F32, 1, {3}, data},
                             {"m.key.bias", VD_ST_F32, 1, {3}, data},
                             {"m.value.bias", VD_ST_F32, 1, {3}, data},
                             {"m.proj_attn.bias", VD_ST_F32, 1, {3}, data}};
    vd_error err;
    vd_tensor_ref ref;
    assert_int_equal(vd_safetensors_write(folder_path(&f, "model.safetensors"), out, 7, false, &err), VD_OK);
    vd_store *store = open_store(&f, "model");
    const int64_t right[] = {2, 3}, swapped[] = {3, 2}, one[] = {1}, three[] = {3};
    assert_int_equal(vd_store_find(store, "w", 2, right, &ref, &err), VD_OK);
    assert_int_equal(vd_store_find(store, "scalar", 1, one, &ref, &err), VD_OK);
    assert_int_equal(vd_store_find(store, "one", 0, NULL, &ref, &err), VD_OK);
    const char *const aliased[] = {"m.to_q.weight", "m.to_k.bias", "m.to_v.bias", "m.to_out.0.bias"};
    for (int i = 0; i < 4; i++)
        assert_int_equal(vd_store_find(store, aliased[i], 1, three, &ref, &err), VD_OK);
    assert_string_equal(ref.tensor->name, "m.proj_attn.bias");
    vd_code code = vd_store_find(store, "w", 2, swapped, &ref, &err);
    check_refusal("swapped", code, VD_ERR_DATA, &err, "tensor 'w'",
                  "shape [2, 3], the configuration needs [3, 2]", 0);
    code = vd_store_find(store, "w", 1, three, &ref, &err);
    check_refusal("rank", code, VD_ERR_DATA, &err, "tensor 'w'", "the configuration needs [3]", 0);
    code = vd_store_find(store, "scalar", 1, three, &ref, &err);
    check_refusal("scalar", code, VD_ERR_DATA, &err, "tensor 'scalar'",
                  "shape [], the configuration needs [3]", 0);
    code = vd_store_find(store, "m.to_q.bias", 1, three, &ref, &err);
    check_refusal("missing", code, VD_ERR_DATA, &err, f.path, "tensor 'm.to_q.bias' is missing", 0);
    vd_store_close(store);
    folder_remove(&f);
}

static void test_unused(void **state) {
    (void)state;
    folder f = folder_make();
    lines kept = {.count = 0};
    const vd_log log = {keep_line, &kept, VD_LOG_WARNING};
    put(&f, "model.safetensors",
        "used extra vision_model.embeddings.position_ids x.transformer_blocks.0.attn2.to_q.weight "
        "x.temporal_transformer_blocks.0.attn2.to_k.weight x.transformer_blocks.0.norm2.bias "
        "decoder.mid_block.attentions.0.to_q.bias x.resnets.0.norm2.bias",
        1);
    vd_store *store = open_store(&f, "model");
    value_of(store, "used");
    vd_store_warn_unused(store, &log);
    assert_int_equal(kept.count, 2);
    assert_non_null(strstr(kept.text[0], "tensor 'extra'"));
    assert_non_null(strstr(kept.text[1], "tensor 'x.resnets.0.norm2.bias'"));
    vd_store_close(store);

    put(&f, "model.safetensors", "a b c d e f g h", 1);
    store = open_store(&f, "model");
    value_of(store, "h");
    kept.count = 0;
    vd_store_warn_unused(store, &log);
    assert_int_equal(kept.count, 6);
    assert_non_null(strstr(kept.text[5], "2 more tensors"));
    vd_store_close(store);
    folder_remove(&f);
}

static void *use_all(void *store) {
    for (int round = 0; round < 100; round++)
        for (char name[] = "a"; *name <= 'h'; ++*name)
            if (value_of(store, name) != 1)
                return store;
    return NULL;
}

/* Loader threads share a store. */
static void test_threads(void **state) {
    (void)state;
    folder f = folder_make();
    pthread_t threads[4];
    put(&f, "model.safetensors", "a b c d e f g h", 1);
    vd_store *store = open_store(&f, "model");
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use_all, store), 0);
    for (int i = 0; i < 4; i++) {
        void *failed;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    vd_store_close(store);
    folder_remove(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),           cmocka_unit_test(test_preference),
        cmocka_unit_test(test_links),           cmocka_unit_test(test_bad_indices),
        cmocka_unit_test(test_too_many_shards), cmocka_unit_test(test_absent),
        cmocka_unit_test(test_shapes),          cmocka_unit_test(test_unused),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
