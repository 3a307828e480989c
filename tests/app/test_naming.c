/* Output templates. */
#include "app/naming.h"
#include "base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_expansion(void **state) {
    static const struct {
        const char *folder, *template, *image, *expected;
    } cases[] = {
        {NULL, "out/{stem}-s{seed}", "photos/fox.tar.jpg", "out/fox.tar-s42"},
        {"dir", "{stem}_{index}_{gpus}", "a.png", "dir/a_003_7"},
        {"dir", "/abs/{stem}", "a.png", "/abs/a"},
        {"dir/", "./x//y/../{seed}", "a.png", "dir/x/y/../42"},
        {NULL, "{{{seed}}}", "a.png", "{42}"},
        {NULL, "{{stem}}", "a.png", "{stem}"},
        {NULL, "%s%n{stem}", ".hidden", "%s%n.hidden"},
        {NULL, "././a", "a.png", "a"},
        {NULL, "{stem}", NULL, "latents"},
        {"", "x", "a.png", "x"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const vd_name_fields fields = {cases[i].image, 42, 3, 7};
        char out[VD_PATH_CAP];
        vd_error err = {0};
        assert_int_equal(
            vd_name_expand(cases[i].folder, cases[i].template, strlen(cases[i].template), &fields, out, &err),
            VD_OK);
        assert_string_equal(out, cases[i].expected);
    }
}

static void test_bad_templates(void **state) {
    static const char *const templates[] = {"{step}", "{stem", "a}b",     "{",        "}",
                                            "{}",     "out/",  "{ seed}", "{seed:03}"};
    const vd_name_fields fields = {"a.png", 1, 0, 1};
    char out[VD_PATH_CAP];
    vd_error err = {0};
    (void)state;
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++)
        assert_int_equal(vd_name_expand(NULL, templates[i], strlen(templates[i]), &fields, out, &err),
                         VD_ERR_USAGE);
    char longest[VD_PATH_CAP + 1];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(vd_name_expand(NULL, longest, strlen(longest), &fields, out, &err),
                     VD_ERR_CANNOT_CREATE);
}

static void test_extension_picks_the_format(void **state) {
    static const struct {
        const char *template, *format;
        size_t length;
    } cases[] = {
        {"a.png", "png", 1},   {"d.x/a.SafeTensors", "latents", 5},
        {"a", NULL, 1},        {"v1.2", NULL, 4},
        {"a.{seed}", NULL, 8}, {".png", NULL, 4},
        {"d.png/a", NULL, 7},  {"a-{stem}.v2-final", NULL, 17},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t length;
        const vd_format *format;
        vd_error err = {0};
        assert_int_equal(vd_name_format(cases[i].template, &length, &format, &err), VD_OK);
        assert_int_equal(length, cases[i].length);
        assert_ptr_equal(format, cases[i].format ? vd_format_find(cases[i].format) : NULL);
    }
    size_t length;
    const vd_format *format;
    vd_error err = {0};
    assert_int_equal(vd_name_format("a.avi", &length, &format, &err), VD_ERR_USAGE);
    assert_non_null(strstr(err.message, ".avi"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expansion),
        cmocka_unit_test(test_bad_templates),
        cmocka_unit_test(test_extension_picks_the_format),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
