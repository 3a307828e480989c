#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static json_t *parse(const char *text) {
    json_t *value;
    vd_error err;
    if (vd_json_parse(text, strlen(text), "doc", &value, &err) != VD_OK)
        fail_msg("%s", err.message);
    return value;
}

static void assert_malformed(const char *text, size_t length, const char *where) {
    json_t *value = (json_t *)1;
    vd_error err;
    assert_int_equal(vd_json_parse(text, length, "doc", &value, &err), VD_ERR_DATA);
    assert_null(value);
    assert_non_null(strstr(err.message, "'doc' is not valid JSON: line "));
    assert_non_null(strstr(err.message, where));
}
#define ASSERT_MALFORMED(text, where) assert_malformed(text, sizeof(text) - 1, where)

static void malformed_documents_are_refused_by_place(void **state) {
    (void)state;
    ASSERT_MALFORMED("", "line 1, column 0");
    ASSERT_MALFORMED("{\n \"a\": 1,\n}", "line 3, column 1");
    ASSERT_MALFORMED("{\"a\": 1, \"a\": 2}", "duplicate");
    ASSERT_MALFORMED("{\"a\": 1, \"\\u0061\": 2}", "duplicate");
    ASSERT_MALFORMED("{} x", "end of file expected");
    ASSERT_MALFORMED("{}\0", "line 1");
    ASSERT_MALFORMED("\xef\xbb\xbf{}", "line 1");
    ASSERT_MALFORMED("{\"a\": \"\xff\"}", "line 1");
    ASSERT_MALFORMED("{\"a\": 1e999}", "line 1");
    ASSERT_MALFORMED("{\"a\": 99999999999999999999}", "line 1");
    ASSERT_MALFORMED("{\"a\": NaN}", "line 1");
    char deep[10000];
    memset(deep, '[', sizeof deep);
    assert_malformed(deep, sizeof deep, "depth");
}

static void members_are_typed_and_bounded(void **state) {
    (void)state;
    json_t *o = parse("{\"i\": -5, \"d\": 2.5, \"b\": true, \"s\": \"text\", \"n\": null}");
    vd_error err;
    int64_t i = 0;
    double d = 0;
    bool b = false;
    const char *s = NULL;
    assert_int_equal(vd_json_int(o, "doc", "i", true, -5, -5, &i, &err), VD_OK);
    assert_int_equal(vd_json_double(o, "doc", "d", true, 2.5, 2.5, &d, &err), VD_OK);
    assert_int_equal(vd_json_bool(o, "doc", "b", true, &b, &err), VD_OK);
    assert_int_equal(vd_json_string(o, "doc", "s", true, &s, &err), VD_OK);
    assert_true(i == -5 && d == 2.5 && b);
    assert_string_equal(s, "text");
    assert_int_equal(vd_json_double(o, "doc", "i", true, -9, 9, &d, &err), VD_OK);
    assert_true(d == -5); /* integers are numbers too */

    assert_int_equal(vd_json_int(o, "doc", "i", true, 0, 9, &i, &err), VD_ERR_DATA);
    assert_string_equal(err.message, "'doc': 'i' is -5; expected an integer from 0 to 9");
    assert_int_equal(vd_json_int(o, "doc", "d", true, 0, 9, &i, &err), VD_ERR_DATA);
    assert_int_equal(vd_json_double(o, "doc", "d", true, 3, 4, &d, &err), VD_ERR_DATA);
    assert_string_equal(err.message, "'doc': 'd' is 2.5; expected a number from 3 to 4");
    assert_int_equal(vd_json_double(o, "doc", "s", true, 3, 4, &d, &err), VD_ERR_DATA);
    assert_int_equal(vd_json_bool(o, "doc", "s", true, &b, &err), VD_ERR_DATA);
    assert_string_equal(err.message, "'doc': 's' is \"text\"; expected true or false");
    assert_int_equal(vd_json_string(o, "doc", "b", true, &s, &err), VD_ERR_DATA);
    assert_true(i == -5 && d == -5 && b);
    json_decref(o);
}

static void absent_members_keep_the_default(void **state) {
    (void)state;
    json_t *o = parse("{\"null\": null}");
    const char *keys[] = {"null", "absent"};
    for (int k = 0; k < 2; k++) {
        vd_error err;
        int64_t i = 1;
        double d = 2;
        bool b = true;
        const char *s = "kept";
        assert_int_equal(vd_json_int(o, "doc", keys[k], false, 5, 6, &i, &err), VD_OK);
        assert_int_equal(vd_json_double(o, "doc", keys[k], false, 5, 6, &d, &err), VD_OK);
        assert_int_equal(vd_json_bool(o, "doc", keys[k], false, &b, &err), VD_OK);
        assert_int_equal(vd_json_string(o, "doc", keys[k], false, &s, &err), VD_OK);
        assert_true(i == 1 && d == 2 && b && strcmp(s, "kept") == 0);
        assert_int_equal(vd_json_int(o, "doc", keys[k], true, 5, 6, &i, &err), VD_ERR_DATA);
        assert_int_equal(vd_json_double(o, "doc", keys[k], true, 5, 6, &d, &err), VD_ERR_DATA);
        assert_int_equal(vd_json_bool(o, "doc", keys[k], true, &b, &err), VD_ERR_DATA);
        assert_int_equal(vd_json_string(o, "doc", keys[k], true, &s, &err), VD_ERR_DATA);
        assert_non_null(strstr(err.message, "is missing"));
    }
    json_decref(o);
}

static void saved_documents_load_again(void **state) {
    (void)state;
    char folder[] = "/tmp/vdpp-test-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/doc.json", folder);
    json_t *o = parse("{\"b\": [1, 2.5, \"x\\ny\"], \"a\": {}}"), *again;
    vd_error err;
    assert_int_equal(vd_json_save(o, path, false, &err), VD_OK);
    assert_int_equal(vd_json_save(o, path, false, &err), VD_ERR_CANNOT_CREATE);
    assert_int_equal(vd_json_load(path, 1000, &again, &err), VD_OK);
    assert_true(json_equal(o, again));
    json_decref(again);
    char *text;
    size_t length;
    assert_int_equal(vd_file_read(path, "file", 1000, &text, &length, &err), VD_OK);
    assert_string_equal(text + length - 2, "}\n");
    assert_int_equal(strlen(text), length);
    free(text);
    assert_int_equal(vd_json_load(path, 10, &again, &err), VD_ERR_DATA);
    assert_null(again);
    json_decref(o);
    assert_int_equal(unlink(path) | rmdir(folder), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_documents_are_refused_by_place),
        cmocka_unit_test(members_are_typed_and_bounded),
        cmocka_unit_test(absent_members_keep_the_default),
        cmocka_unit_test(saved_documents_load_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
