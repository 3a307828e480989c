/* What the machine says of itself, against what else is known of it. */
#include "must.h"

#include "base/machine.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK = 32 << 20 };

static void test_memory(void **state) {
    (void)state;
    size_t pages = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    assert_in_range(vd_machine_memory(), 1 << 20, pages);
    assert_in_range(vd_machine_available(), 1, vd_machine_memory());
}

/* A block counts once it is touched. */
static void test_resident(void **state) {
    (void)state;
    size_t before = vd_process_resident();
    char *block = malloc(BLOCK);
    assert_non_null(block);
    memset(block, 1, BLOCK);
    assert_in_range(vd_process_resident(), before + BLOCK / 2, vd_machine_memory());
    assert_int_equal(block[BLOCK - 1], 1);
    free(block);
}

static void test_model(void **state) {
    (void)state;
    char whole[160], cut[4];
    assert_true(*vd_machine_model(whole, sizeof whole) != 0);
    assert_null(strchr(whole, '\n'));
    assert_int_equal(strlen(vd_machine_model(cut, sizeof cut)), 3);
    assert_memory_equal(cut, whole, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_memory), cmocka_unit_test(test_resident),
                                       cmocka_unit_test(test_model)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
