/* Weight files: hostile ones refused by name (faults.md 38 to 69), odd but legal ones read, written ones read
 * back. */
#include "model/folder.h"
#include "model/safetensors.h"

#include "base/half.h"

#include <math.h>

/* A file of `json` behind its length, and `data` zero bytes. */
static char *make_file(const char *json, size_t json_length, size_t data, size_t *count) {
    *count = 8 + json_length + data;
    char *bytes = calloc(1, *count + 1);
    assert_non_null(bytes);
    for (int i = 0; i < 8; i++)
        bytes[i] = (char)((uint64_t)json_length >> 8 * i);
    memcpy(bytes + 8, json, json_length);
    return bytes;
}

static vd_code open_bytes(const folder *f, const void *bytes, size_t count, vd_error *err) {
    vd_safetensors *file = NULL;
    folder_write(f, "bad.safetensors", bytes, count);
    vd_code code = vd_safetensors_open(folder_path(f, "bad.safetensors"), &file, err);
    vd_safetensors_close(file);
    return code;
}

/* Refused both from memory and as a file, for the same reason. */
static void refuse(const folder *f, const char *label, const char *bytes, size_t count, const char *reason) {
    vd_error err = {0};
    double start = cpu_seconds();
    vd_code code = vd_safetensors_check_header(bytes, count, count, "bad.safetensors", &err);
    check_refusal(label, code, VD_ERR_DATA, &err, "bad.safetensors", reason, cpu_seconds() - start);
    start = cpu_seconds();
    code = open_bytes(f, bytes, count, &err);
    check_refusal(label, code, VD_ERR_DATA, &err, "bad.safetensors", reason, cpu_seconds() - start);
}

static void accept(const folder *f, const char *label, const char *json, size_t data) {
    vd_error err = {0};
    size_t count;
    char *bytes = make_file(json, strlen(json), data, &count);
    if (open_bytes(f, bytes, count, &err) != VD_OK)
        fail_msg("%s: %s", label, err.message);
    free(bytes);
}

#define T(name, dtype, shape, begin, end)                                                                    \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

static const struct {
    const char *json;
    size_t data;
    const char *reason;
} bad_headers[] = {
    {"", 0, "does not start with '{'"},
    {"[]", 0, "does not start with '{'"},
    {" {}", 0, "does not start with '{'"},
    {"\xef\xbb\xbf{}", 0, "does not start with '{'"},
    {"{", 0, "not valid JSON"},
    {"{]", 0, "not valid JSON"},
    {"{}x", 0, "after its end"},
    {"{}\n", 0, "after its end"},
    {"{}{}", 0, "after its end"},
    {"{\"a\":1,}", 0, "not valid JSON"},
    {"{\"\xff\":{}}", 0, "not valid JSON"},
    {"{\"\\ud800\":{}}", 0, "not valid JSON"},
    {"{\"a\\u0000b\":{}}", 0, "not valid JSON"},
    {"{" T("a", "F32", "[1]", "0", "4") "," T("a", "F32", "[1]", "4", "8") "}", 8, "duplicate"},
    {"{" T("a", "F32", "[1]", "0", "4") "," T("\\u0061", "F32", "[1]", "4", "8") "}", 8, "duplicate"},
    {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "duplicate"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "exactly dtype, shape and data_offsets"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":0}}", 4, "exactly dtype"},
    {"{\"a\":7}", 0, "exactly dtype"},
    {"{\"a\":{\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "exactly dtype"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__ 'a' is not a string"},
    {"{\"__metadata__\":[]}", 0, "__metadata__ is not an object"},
    {"{" T("a", "F32", "[1]", "4", "0") "}", 4, "begin after they end"},
    {"{" T("a", "F32", "[1]", "-4", "0") "}", 4, "not an integer >= 0"},
    {"{" T("a", "F32", "[1]", "0.0", "4") "}", 4, "not an integer >= 0"},
    {"{" T("a", "F32", "[250]", "0", "1e3") "}", 1000, "not an integer >= 0"},
    {"{" T("a", "F32", "[1]", "\"0\"", "4") "}", 4, "not an integer >= 0"},
    {"{" T("a", "F32", "[1]", "0", "18446744073709551616") "}", 4, "too big integer"},
    {"{" T("a", "F32", "[1]", "0", "9223372036854775807") "}", 4, "truncated"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, "not a pair"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":4}}", 4, "not a pair"},
    {"{" T("a", "F32", "[2]", "0", "8") "," T("b", "F32", "[1]", "4", "8") "}", 8, "overlap"},
    {"{" T("a", "F32", "[1]", "0", "4") "," T("b", "F32", "[1]", "0", "4") "}", 4, "overlap"},
    {"{" T("a", "F32", "[2]", "0", "8") "," T("b", "F32", "[0]", "4", "4") "}", 8, "overlap"},
    {"{" T("a", "F32", "[1]", "0", "4") "," T("b", "F32", "[1]", "8", "12") "}", 12, "hole"},
    {"{" T("a", "F32", "[1]", "4", "8") "}", 8, "hole"},
    {"{" T("a", "F32", "[0]", "4", "4") "}", 4, "hole"},
    {"{" T("a", "F32", "[1]", "0", "4") "}", 5, "1 bytes after the last tensor"},
    {"{}", 1, "after the last tensor"},
    {"{" T("a", "F32", "[1]", "0", "4") "}", 3, "truncated"},
    {"{" T("a", "F32", "[4611686018427387905]", "0", "4") "}", 4, "more elements"},
    {"{" T("a", "F32", "[4294967296,4294967296,0]", "0", "0") "}", 0, "more elements"},
    {"{" T("a", "F32", "[-1]", "0", "4") "}", 4, "not an integer >= 0"},
    {"{" T("a", "F32", "[1.0]", "0", "4") "}", 4, "not an integer >= 0"},
    {"{" T("a", "F32", "[true]", "0", "4") "}", 4, "not an integer >= 0"},
    {"{" T("a", "F32", "1", "0", "4") "}", 4, "shape is not a list"},
    {"{" T("a", "F32", "[1,1,1,1,1,1,1,1,1]", "0", "4") "}", 4, "more than 8 members"},
    {"{" T("a", "F32", "[[1]]", "0", "4") "}", 4, "nested too deeply"},
    {"{" T("a", "f32", "[1]", "0", "4") "}", 4, "dtype 'f32' is unknown"},
    {"{" T("a", "F16", "[1]", "0", "4") "}", 4, "shape and dtype need 2 bytes"},
    {"{" T("a", "F32", "[2]", "0", "4") "}", 4, "shape and dtype need 8 bytes"},
    {"{" T("a", "F4", "[3]", "0", "2") "}", 2, "whole bytes"},
    {"{" T("a\\n\\u001b[31m", "F9", "[1]", "0", "4") "}", 4, "unknown"},
    {"{" T("../../etc/passwd", "F32", "[2]", "0", "4") "}", 4, "tensor '../../etc/passwd'"},
};

static void test_bad_headers(void **state) {
    (void)state;
    folder f = folder_make();
    for (size_t i = 0; i < sizeof bad_headers / sizeof *bad_headers; i++) {
        size_t count;
        char *bytes =
            make_file(bad_headers[i].json, strlen(bad_headers[i].json), bad_headers[i].data, &count);
        refuse(&f, bad_headers[i].json, bytes, count, bad_headers[i].reason);
        free(bytes);
    }
    folder_remove(&f);
}

/* The length in front, the first bytes of other formats, and files cut at every byte. */
static void test_bad_starts(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t count;
        const char *reason;
    } cases[] = {
        {"", 0, "too short"},
        {"\2", 1, "too short"},
        {"\2\0\0\0\0\0\0", 7, "too short"},
        {"\0\0\0\0\0\0\0\0", 8, "does not start"},
        {"\1\0\0\0\0\0\0\0{", 9, "not valid JSON"},
        {"\3\0\0\0\0\0\0\0{}", 10, "does not fit the file"},
        {"\xff\xff\xff\xff\xff\xff\xff\xff{}", 10, "the format allows 100000000"},
        {"\0\0\0\0\0\0\0\x80{}", 10, "the format allows 100000000"},
        {"\x01\xe1\xf5\x05\0\0\0\0{}", 10, "100000001 bytes, the format allows"},
        {"\x00\xe1\xf5\x05\0\0\0\0{}", 10, "does not fit the file"},
        {"\2\0\0\0\0\0\0\0{\0", 10, "not valid JSON"},
        {"\x80\2}q\0(X\1\0\0\0", 12, "a pickle"},
        {"PK\3\4\0\0\10\10\0\0\0\0", 12, "a zip archive"},
        {"GGUF\3\0\0\0\0\0\0\0", 12, "a GGUF file"},
        {"version https://git-lfs.github.com/spec/v1\noid", 46, "Git LFS pointer"},
        {"<!DOCTYPE html><html>", 21, "an HTML page"},
        {"<html><body>401</body>", 22, "an HTML page"},
        {"\x89HDF\r\n\x1a\n\0\0\0\0", 12, "HDF5"},
    };
    folder f = folder_make();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse(&f, cases[i].reason, cases[i].bytes, cases[i].count, cases[i].reason);

    const char *json = "{" T("a", "F32", "[1024]", "0", "4096") "}";
    size_t count;
    char *bytes = make_file(json, strlen(json), 4096, &count);
    for (size_t cut = 0; cut < count; cut += cut < 100 || cut > count - 5 ? 1 : 97)
        refuse(&f, "cut", bytes, cut, "");
    free(bytes);
    folder_remove(&f);
}

static char *repeat(const char *start, const char *middle, size_t times, const char *end) {
    size_t s = strlen(start), m = strlen(middle);
    char *text = malloc(s + m * times + strlen(end) + 1);
    assert_non_null(text);
    strcpy(text, start);
    for (size_t i = 0; i < times; i++)
        memcpy(text + s + i * m, middle, m);
    strcpy(text + s + m * times, end);
    return text;
}

/* What costs a careless parser its stack, its memory or its time. */
static void test_large_nonsense(void **state) {
    (void)state;
    static const struct {
        const char *start, *middle;
        size_t times;
        const char *end, *reason;
    } cases[] = {
        {"{\"a\":", "[", 10000, "", "nested too deeply"},
        {"{\"a\":", "{\"a\":", 10000, "", "nested too deeply"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1", ",1", 1000000, "],\"data_offsets\":[0,4]}}",
         "more than 8 members"},
        {"{\"", "n", 1000000, "\":{\"dtype\":\"F9\",\"shape\":[],\"data_offsets\":[0,4]}}",
         "dtype 'F9' is unknown"},
        {"{\"a\":{\"dtype\":\"", "F", 1000000, "\",\"shape\":[],\"data_offsets\":[0,4]}}", "is unknown"},
        {"{\"a\":\"", "\\", 1000000, "", "not valid JSON"},
    };
    folder f = folder_make();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *json = repeat(cases[i].start, cases[i].middle, cases[i].times, cases[i].end);
        size_t count;
        char *bytes = make_file(json, strlen(json), 4, &count);
        refuse(&f, cases[i].reason, bytes, count, cases[i].reason);
        free(bytes);
        free(json);
    }
    folder_remove(&f);
}

static void test_odd_but_legal(void **state) {
    (void)state;
    folder f = folder_make();
    accept(&f, "no tensors", "{}", 0);
    accept(&f, "padding", "{}     ", 0);
    accept(&f, "metadata", "{\"__metadata__\":{\"format\":\"pt\",\"\\u00e4\":\"\"}}", 0);
    accept(&f, "rank 0", "{" T("mix_factor", "F32", "[]", "0", "4") "}", 4);
    accept(&f, "unaligned", "{" T("a", "U8", "[1]", "0", "1") "," T("b", "F32", "[1]", "1", "5") "}", 5);
    accept(&f, "order", "{" T("a", "F32", "[1]", "4", "8") "," T("b", "F32", "[1]", "0", "4") "}", 8);
    accept(&f, "empty", "{" T("a", "F32", "[0,3]", "0", "0") "," T("b", "F32", "[1]", "0", "4") "}", 4);
    accept(&f, "empty last", "{" T("b", "F32", "[1]", "0", "4") "," T("a", "F32", "[0]", "4", "4") "}", 4);
    accept(&f, "sub-byte", "{" T("a", "F4", "[4]", "0", "2") "}", 2);
    accept(&f, "rank 8", "{" T("a", "F64", "[1,1,1,1,1,1,1,1]", "0", "8") "}", 8);
    accept(&f, "brackets in names", "{" T("[[[[{{\\\"", "I64", "[1]", "0", "8") "}", 8);
    folder_remove(&f);
}

/* 100,000 tensors: parsed, sorted and searchable in well under a second. */
static void test_many_tensors(void **state) {
    (void)state;
    enum { COUNT = 100000 };
    folder f = folder_make();
    float *data = calloc(COUNT, sizeof *data);
    vd_st_out *out = calloc(COUNT, sizeof *out);
    char(*names)[16] = calloc(COUNT, sizeof *names);
    for (int i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof names[i], "t%d", (int)((int64_t)i * 7919 % COUNT));
        out[i] = (vd_st_out){.name = names[i], .dtype = VD_ST_F32, .rank = 1, .dims = {1}, .data = &data[i]};
    }
    vd_error err;
    assert_int_equal(vd_safetensors_write(folder_path(&f, "many"), out, COUNT, false, &err), VD_OK);
    vd_safetensors *file;
    double seconds = 0;
    for (int attempt = 0; attempt == 0 || (attempt < 4 && seconds > 1); attempt++) {
        if (attempt)
            vd_safetensors_close(file);
        double start = cpu_seconds();
        assert_int_equal(vd_safetensors_open(folder_path(&f, "many"), &file, &err), VD_OK);
        seconds = cpu_seconds() - start;
    }
    check_time("100,000 tensors", seconds, 1);
    assert_int_equal(vd_safetensors_count(file), COUNT);
    for (int i = 1; i < COUNT; i++)
        assert_true(strcmp(vd_safetensors_at(file, i - 1)->name, vd_safetensors_at(file, i)->name) < 0);
    for (int i = 0; i < COUNT; i += 997)
        assert_string_equal(vd_safetensors_find(file, names[i])->name, names[i]);
    assert_null(vd_safetensors_find(file, "t"));
    vd_safetensors_close(file);
    free(names);
    free(out);
    free(data);
    folder_remove(&f);
}

enum { HALVES = 65536 };

/* Every half and every bfloat16 there is, at an unaligned place, read in pieces. */
static void test_read_converts(void **state) {
    (void)state;
    folder f = folder_make();
    static uint16_t halves[HALVES];
    static float floats[5] = {1.5f, -0.0f, INFINITY, 3e-39f, -7}, got[HALVES];
    const unsigned char byte = 9;
    for (int i = 0; i < HALVES; i++)
        halves[i] = (uint16_t)i;
    const vd_st_out out[] = {
        {"byte", VD_ST_U8, 1, {1}, &byte},
        {"f16", VD_ST_F16, 2, {256, 256}, halves},
        {"bf16", VD_ST_BF16, 1, {HALVES}, halves},
        {"f32", VD_ST_F32, 1, {5}, floats},
    };
    vd_error err;
    vd_safetensors *file;
    assert_int_equal(vd_safetensors_write(folder_path(&f, "h"), out, 4, false, &err), VD_OK);
    assert_int_equal(vd_safetensors_open(folder_path(&f, "h"), &file, &err), VD_OK);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        const vd_st_tensor *t = vd_safetensors_find(file, bf16 ? "bf16" : "f16");
        assert_int_equal(vd_safetensors_read_f32(file, t, 0, 40000, got, &err), VD_OK);
        assert_int_equal(vd_safetensors_read_f32(file, t, 40000, HALVES - 40000, got + 40000, &err), VD_OK);
        for (int i = 0; i < HALVES; i++) {
            float expected = bf16 ? vd_bf16_to_f32(halves[i]) : vd_f16_to_f32(halves[i]);
            if (isnan(expected)) /* hardware makes it quiet */
                assert_true(isnan(got[i]));
            else
                assert_memory_equal(&got[i], &expected, sizeof expected);
        }
        assert_int_equal(vd_safetensors_read_f32(file, t, HALVES - 1, 2, got, &err), VD_ERR_INTERNAL);
        assert_int_equal(vd_safetensors_read_f32(file, t, -1, 1, got, &err), VD_ERR_INTERNAL);
    }
    assert_int_equal(vd_safetensors_read_f32(file, vd_safetensors_find(file, "f32"), 1, 4, got, &err), VD_OK);
    assert_memory_equal(got, floats + 1, sizeof floats - sizeof *floats);
    assert_int_equal(vd_safetensors_read_f32(file, vd_safetensors_find(file, "byte"), 0, 1, got, &err),
                     VD_ERR_DATA);
    assert_non_null(strstr(err.message, "'byte' is not F32"));
    vd_safetensors_close(file);
    folder_remove(&f);
}

/* A file that is cut or rewritten after its header was proven is an error, not a signal and not zeros. */
static void test_change_after_open(void **state) {
    (void)state;
    folder f = folder_make();
    const char *path = folder_path(&f, "w");
    static float data[5000], got[5000];
    const vd_st_out out = {"a", VD_ST_F32, 1, {5000}, data};
    vd_error err;
    vd_safetensors *file;
    for (int rewrite = 0; rewrite < 2; rewrite++) {
        assert_int_equal(vd_safetensors_write(path, &out, 1, true, &err), VD_OK);
        assert_int_equal(vd_safetensors_open(path, &file, &err), VD_OK);
        const vd_st_tensor *a = vd_safetensors_find(file, "a");
        assert_int_equal(vd_safetensors_read_f32(file, a, 0, 5000, got, &err), VD_OK);
        if (rewrite) {
            usleep(20000); /* beyond the granularity of file times */
            FILE *again = fopen(path, "r+");
            assert_true(again && fseek(again, -4, SEEK_END) == 0 && fputc(1, again) == 1 &&
                        fclose(again) == 0);
        } else {
            assert_int_equal(truncate(path, 4096), 0);
        }
        double start = cpu_seconds();
        vd_code code = vd_safetensors_read_f32(file, a, 0, 5000, got, &err);
        check_refusal("changed", code, VD_ERR_DATA, &err, path, rewrite ? "changed" : "ends at",
                      cpu_seconds() - start);
        vd_safetensors_close(file);
    }
    folder_remove(&f);
}

static void test_not_a_file(void **state) {
    (void)state;
    folder f = folder_make();
    vd_error err;
    vd_safetensors *file;
    double start = cpu_seconds();
    vd_code code = vd_safetensors_open(folder_path(&f, "absent"), &file, &err);
    check_refusal("absent", code, VD_ERR_NO_INPUT, &err, "absent", "No such file", cpu_seconds() - start);
    assert_int_equal(mkfifo(folder_path(&f, "fifo"), 0600), 0);
    code = vd_safetensors_open(folder_path(&f, "fifo"), &file, &err);
    check_refusal("fifo", code, VD_ERR_NO_INPUT, &err, "fifo", "not a regular file", 0);
    code = vd_safetensors_open(f.path, &file, &err);
    check_refusal("folder", code, VD_ERR_NO_INPUT, &err, f.path, "not a regular file", 0);
    folder_remove(&f);
}

static void test_write_refuses(void **state) {
    (void)state;
    folder f = folder_make();
    float one = 1;
    const vd_st_out twice[] = {{"a", VD_ST_F32, 0, {0}, &one}, {"a", VD_ST_F32, 0, {0}, &one}};
    const vd_st_out other = {"a", VD_ST_OTHER, 0, {0}, &one};
    vd_error err;
    assert_int_equal(vd_safetensors_write(folder_path(&f, "w"), twice, 2, false, &err), VD_ERR_INTERNAL);
    assert_int_equal(vd_safetensors_write(folder_path(&f, "w"), &other, 1, false, &err), VD_ERR_INTERNAL);
    assert_int_equal(vd_safetensors_write(folder_path(&f, "w"), twice, 1, false, &err), VD_OK);
    assert_int_equal(vd_safetensors_write(folder_path(&f, "w"), twice, 1, false, &err), VD_ERR_CANNOT_CREATE);
    folder_remove(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_headers),       cmocka_unit_test(test_bad_starts),
        cmocka_unit_test(test_large_nonsense),    cmocka_unit_test(test_odd_but_legal),
        cmocka_unit_test(test_many_tensors),      cmocka_unit_test(test_read_converts),
        cmocka_unit_test(test_change_after_open), cmocka_unit_test(test_not_a_file),
        cmocka_unit_test(test_write_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
