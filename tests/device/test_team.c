/* Threads that share the items of one piece of work. */
#include "must.h"

#include "base/thread.h"
#include "device/cpu_team.h"

enum { TEAM = 5, ITEMS = 200 };

typedef struct shift {
    vd_cpu_team *team;
    _Atomic int *done; /* [ITEMS] */
    int bad;           /* item that fails; -1 */
    vd_thread thread;
    vd_code code;
    vd_error error;
} shift;

static vd_code do_item(void *context, int i, vd_error *err) {
    shift *s = context;
    atomic_fetch_add(&s->done[i], 1);
    return i == s->bad ? vd_fail(err, VD_ERR_DATA, "item %d", i) : VD_OK;
}

static void *do_shift(void *argument) {
    shift *s = argument;
    s->code = vd_cpu_team_work(s->team, ITEMS, do_item, s, &s->error);
    return NULL;
}

/* Each item is done once, and everybody learns how it went, also who comes later. */
static void check_team(int bad) {
    vd_cpu_team team;
    _Atomic int done[ITEMS] = {0};
    shift shifts[TEAM];
    vd_cpu_team_init(&team);
    for (int i = 0; i < TEAM; i++) {
        shifts[i] = (shift){.team = &team, .done = done, .bad = bad};
        must(vd_thread_start(&shifts[i].thread, "team", VD_ANY_CPU, do_shift, &shifts[i], err));
    }
    for (int i = 0; i < TEAM; i++)
        vd_thread_join(&shifts[i].thread);
    do_shift(&shifts[0]);
    for (int i = 0; i < TEAM; i++) {
        assert_int_equal(shifts[i].code, bad < 0 ? VD_OK : VD_ERR_DATA);
        if (bad >= 0)
            assert_string_equal(shifts[i].error.message, "item 77");
    }
    for (int i = 0; i < ITEMS; i++)
        assert_true(done[i] == 1 || (bad >= 0 && i != bad && done[i] == 0));
    vd_cpu_team_destroy(&team);
}

static void test_team(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) {
        check_team(-1);
        check_team(77);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_team)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
