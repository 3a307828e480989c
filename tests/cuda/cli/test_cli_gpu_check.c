/* bench/gpu_check.sh where the fake module stands for CUDA, with the smallest model: parts that pass, fail
 * and are left, one that is done again, figures put together. */
#include "app/shell.h"

#include <jansson.h>

#define CHECK "sh " SOURCE "/bench/gpu_check.sh "

static json_t *results(void) {
    json_error_t where;
    expect("mv out/results/*.json results.json", 0, "", "");
    json_t *all = json_load_file("results.json", 0, &where);
    assert_non_null(all);
    return all;
}

static void test_usage(void **state) {
    (void)state;
    expect(CHECK, 64, "", "bench/gpu_check.sh OUT [PART...]");
    expect(CHECK "out nonsense", 64, "", "no part 'nonsense'; there are: machine build");
    expect("LIMIT=5 " CHECK "out build", 75, "parts are left", ""); /* too little time for any */
    expect("test ! -e out/build/result", 0, "", "");
}

static void test_parts(void **state) {
    (void)state;
    expect(CHECK "out build forwards table compare-golden", 75, "parts are left", "");
    expect("cat out/*/result", 0, "passed\npassed\npassed\npassed\n", "");
    json_t *all = results();
    const json_t *rows = json_object_get(json_object_get(all, "table"), "rows"),
                 *compared = json_object_get(all, "compared"),
                 *forward = json_object_get(json_object_get(all, "forwards"), "clip");
    assert_true(json_array_size(rows) > 5);
    assert_int_equal(json_array_size(compared),
                     13); /* five networks, three types; one encodes in fp32 only */
    assert_true(json_number_value(json_object_get(forward, "untuned_ms")) > 0);
    json_decref(all);
    expect("grep '| clip | fp16 |' out/summary.md", 0, "| 0 |", "");
}

static void test_failure(void **state) {
    (void)state;
    expect("BUILD=nowhere " CHECK "out build", 75, "build: failed (127)", "");
    expect("grep '^| build' out/summary.md", 0, "failed", "");
    expect(CHECK "out build", 75, "build: passed", "");
}

static int enter(void **state) {
    if (system("python3 --version >/dev/null 2>&1") != 0) {
        puts("skipped: there is no python3");
        exit(77);
    }
    const char *const variables[][2] = {{"VDPP_CUDA_MODULE", FAKE_MODULE},
                                        {"BUILD", BUILD_FOLDER},
                                        {"CONFIGS", "tests/golden/configs/small"},
                                        {"GOLDEN", "small"},
                                        {"COMPARE", "1 4 4"}};
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        assert_int_equal(setenv(variables[i][0], variables[i][1], 1), 0);
    if (enter_folder(state))
        return 1;
    expect("echo 'clip clip 1 4 4 # the smallest' >shapes", 0, "", "");
    char here[1024], path[1100];
    assert_non_null(getcwd(here, sizeof here));
    snprintf(path, sizeof path, "%s/shapes", here);
    assert_int_equal(setenv("SHAPES", path, 1), 0);
    snprintf(path, sizeof path, "%s/model", here);
    return setenv("MODEL", path, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_usage), cmocka_unit_test(test_parts),
                                       cmocka_unit_test(test_failure)};
    return cmocka_run_group_tests(tests, enter, leave_folder);
}
