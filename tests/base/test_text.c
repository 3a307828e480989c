/* Text, errors and the log: what reaches a person is one line without controls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/text.h"

#include <stdio.h>
#include <string.h>

static void text_grows(void **state) {
    (void)state;
    vd_text t = {0};
    for (int i = 0; i < 1000; i++)
        vd_text_add(&t, "%d,", i);
    vd_text_add_bytes(&t, "end\0x", 5);
    vd_text_add_bytes(&t, NULL, 0);
    assert_false(t.failed);
    assert_int_equal(t.length, 10 * 2 + 90 * 3 + 900 * 4 + 5);
    assert_memory_equal(t.text, "0,1,2,3,", 8);
    assert_string_equal(t.text + t.length - 9, "999,end");
    assert_int_equal(t.text[t.length], 0);
    vd_text_free(&t);
    assert_null(t.text);
}

static void an_impossible_length_fails(void **state) {
    (void)state;
    vd_text t = {0};
    vd_text_add(&t, "kept");
    vd_text_add_bytes(&t, "x", SIZE_MAX - 8);
    assert_true(t.failed);
    vd_text_add(&t, "ignored");
    assert_string_equal(t.text, "kept");
    vd_text_free(&t);
}

static void check_escape(const char *in, size_t length, const char *expected) {
    char out[256], twice[256];
    assert_string_equal(vd_escape(out, sizeof out, in, length), expected);
    assert_string_equal(vd_escape(twice, sizeof twice, out, strlen(out)), expected);
}
#define CHECK_ESCAPE(in, expected) check_escape(in, sizeof(in) - 1, expected)

static void only_harmless_text_passes(void **state) {
    (void)state;
    CHECK_ESCAPE("plain ~ text \\ \"x\"", "plain ~ text \\ \"x\"");
    CHECK_ESCAPE("\xc3\xa9\xe2\x82\xac\xf0\x9f\x8e\xac", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x8e\xac");
    CHECK_ESCAPE("\033[2Jx\a\r\n\t\x7f", "\\x1b[2Jx\\x07\\x0d\\x0a\\x09\\x7f");
    CHECK_ESCAPE("a\0b", "a\\x00"
                         "b");
    CHECK_ESCAPE("\xc2\x9b"
                 "31m",
                 "\\xc2\\x9b"
                 "31m"); /* CSI in one character */
    CHECK_ESCAPE("a\xe2\x80\xae"
                 "b",
                 "a\\xe2\\x80\\xae"
                 "b");                                                 /* right-to-left override */
    CHECK_ESCAPE("\xe2\x80\xa8", "\\xe2\\x80\\xa8");                   /* line separator */
    CHECK_ESCAPE("\xff\xc3", "\\xff\\xc3");                            /* never valid; cut short */
    CHECK_ESCAPE("\xc0\xaf\xe0\x80\xaf", "\\xc0\\xaf\\xe0\\x80\\xaf"); /* overlong */
    CHECK_ESCAPE("\xed\xa0\x80", "\\xed\\xa0\\x80");                   /* surrogate */
    CHECK_ESCAPE("\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80");          /* beyond U+10FFFF */
}

static void escapes_are_cut_between_characters(void **state) {
    (void)state;
    char out[8];
    assert_string_equal(vd_escape(out, 1, "abc", 3), "");
    assert_string_equal(vd_escape(out, 4, "abc", 3), "abc");
    assert_string_equal(vd_escape(out, 3, "abc", 3), "ab");
    assert_string_equal(vd_escape(out, 5, "ab\n", 3), "ab");
    assert_string_equal(vd_escape(out, 3, "a\xc3\xa9", 3), "a");
}

static void random_bytes_come_out_printable(void **state) {
    (void)state;
    vd_rng rng;
    vd_rng_seed(&rng, 5);
    for (int round = 0; round < 20000; round++) {
        char in[24], out[64];
        for (size_t i = 0; i < sizeof in; i++)
            in[i] = (char)(vd_rng_u32(&rng) >> (round % 2 ? 0 : 1) | (round % 3 ? 0x80 : 0));
        vd_escape(out, 8 + (size_t)round % 56, in, sizeof in);
        assert_true(strlen(out) < 8 + (size_t)round % 56);
        for (const char *c = out; *c; c++)
            assert_false((unsigned char)*c < 0x20 || *c == 0x7f);
    }
}

static void integers_are_strict(void **state) {
    (void)state;
    int64_t i = 77;
    uint64_t u = 77;
    const char *bad[] = {"",
                         "-",
                         "+1",
                         " 1",
                         "1 ",
                         "1x",
                         "0x10",
                         "1.0",
                         "--1",
                         "9223372036854775808",
                         "-9223372036854775809",
                         "99999999999999999999999"};
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++)
        assert_false(vd_parse_i64(bad[k], &i));
    assert_false(vd_parse_u64("-1", &u) || vd_parse_u64("18446744073709551616", &u));
    assert_true(i == 77 && u == 77);
    assert_true(vd_parse_i64("-9223372036854775808", &i) && i == INT64_MIN);
    assert_true(vd_parse_i64("9223372036854775807", &i) && i == INT64_MAX);
    assert_true(vd_parse_u64("18446744073709551615", &u) && u == UINT64_MAX);
    assert_true(vd_parse_i64("-0", &i) && i == 0);
    assert_true(vd_parse_u64("007", &u) && u == 7);
}

static void doubles_are_strict_and_finite(void **state) {
    (void)state;
    double d = 77;
    const char *bad[] = {"", "-", ".", " 1", "1 ", "1x", "0x10", "inf", "nan", "1e999", "1e", "1,5", "1.5.2"};
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++)
        assert_false(vd_parse_double(bad[k], &d));
    assert_true(d == 77);
    assert_true(vd_parse_double("-1.25e2", &d) && d == -125);
    assert_true(vd_parse_double(".5", &d) && d == 0.5);
    assert_true(vd_parse_double("1e-999", &d) && d == 0);
}

static void bytes_for_people(void **state) {
    (void)state;
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {{0, "0 B"},         {999, "999 B"},        {1000, "1.0 kB"},       {1234, "1.2 kB"},
                 {9949, "9.9 kB"},   {9999, "10 kB"},       {12000, "12 kB"},       {999499, "999 kB"},
                 {999500, "1.0 MB"}, {340000000, "340 MB"}, {1200000000, "1.2 GB"}, {UINT64_MAX, "18 EB"}};
    char out[32];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(vd_human_bytes(out, sizeof out, cases[i].bytes), cases[i].text);
}

static vd_code fails_deep(vd_error *err) {
    VD_TRY(vd_fail(err, VD_ERR_DATA, "tensor '%s' has %d values", "a\nb", 3));
    return VD_OK;
}

static void errors_gather_context(void **state) {
    (void)state;
    vd_error err;
    assert_int_equal(fails_deep(&err), VD_ERR_DATA);
    assert_int_equal(vd_fail_in(&err, "model '%s'", "m\033"), VD_ERR_DATA);
    assert_int_equal(err.code, VD_ERR_DATA);
    assert_string_equal(err.message, "model 'm\\x1b': tensor 'a\\x0ab' has 3 values");
    assert_int_equal(vd_fail(&err, VD_ERR_IO, "again: %s", err.message), VD_ERR_IO);
    assert_string_equal(err.message, "again: model 'm\\x1b': tensor 'a\\x0ab' has 3 values");
    assert_int_equal(vd_fail_memory(&err, "the plan", 1500), VD_ERR_UNAVAILABLE);
    assert_string_equal(err.message, "out of memory: the plan needs 1.5 kB of host memory");
}

static void long_errors_are_cut(void **state) {
    (void)state;
    char name[4 * VD_ERROR_CAP];
    vd_error err;
    for (size_t i = 0; i < sizeof name; i += 2)
        memcpy(name + i, "\xc3\xa9", 2);
    name[sizeof name - 2] = '\0';
    vd_fail(&err, VD_ERR_DATA, "%s", name);
    assert_int_equal(strlen(err.message), VD_ERROR_CAP - 2); /* whole characters of two bytes */
    assert_memory_equal(err.message, name, VD_ERROR_CAP - 2);
    vd_fail_in(&err, "%s", name + 2);
    assert_int_equal(strlen(err.message), VD_ERROR_CAP - 1); /* the old message has given way */
    assert_int_equal(err.message[VD_ERROR_CAP - 2], ':');
}

typedef struct seen {
    int lines;
    vd_log_level level;
    char last[VD_LINE_CAP];
} seen;

static void remember(void *user, vd_log_level level, const char *line) {
    seen *s = user;
    s->lines++;
    s->level = level;
    snprintf(s->last, sizeof s->last, "%s", line);
}

static void the_log_filters_and_escapes(void **state) {
    (void)state;
    seen s = {0};
    vd_log log = {.write = remember, .user = &s, .level = VD_LOG_INFO};
    vd_log_line(&log, VD_LOG_DEBUG, "dropped");
    assert_int_equal(s.lines, 0);
    vd_log_line(&log, VD_LOG_INFO, "file '%s'", "x\r\ny");
    assert_int_equal(s.lines, 1);
    assert_int_equal(s.level, VD_LOG_INFO);
    assert_string_equal(s.last, "file 'x\\x0d\\x0ay'");
    vd_log_line(&log, VD_LOG_WARNING, "%*s", 3 * VD_LINE_CAP, "wide");
    assert_int_equal(strlen(s.last), VD_LINE_CAP - 1);
    vd_log_line(NULL, VD_LOG_ERROR, "nowhere");
    vd_log_line(&(vd_log){.level = VD_LOG_DEBUG}, VD_LOG_ERROR, "nowhere");
    assert_int_equal(s.lines, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_grows),
        cmocka_unit_test(an_impossible_length_fails),
        cmocka_unit_test(only_harmless_text_passes),
        cmocka_unit_test(escapes_are_cut_between_characters),
        cmocka_unit_test(random_bytes_come_out_printable),
        cmocka_unit_test(integers_are_strict),
        cmocka_unit_test(doubles_are_strict_and_finite),
        cmocka_unit_test(bytes_for_people),
        cmocka_unit_test(errors_gather_context),
        cmocka_unit_test(long_errors_are_cut),
        cmocka_unit_test(the_log_filters_and_escapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
