#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/thread.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct seen {
    char name[16];
    int cpus, cpu;
    int terminate_blocked;
} seen;

static void *look(void *argument) {
    seen *s = argument;
    cpu_set_t set;
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    s->terminate_blocked = sigismember(&mask, SIGTERM) && sigismember(&mask, SIGINT);
    sched_getaffinity(0, sizeof set, &set);
    s->cpus = CPU_COUNT(&set);
    s->cpu = sched_getcpu();
    for (int tries = 0; tries < 10000 && strncmp(s->name, "a name", 6) != 0; tries++) {
        pthread_getname_np(pthread_self(), s->name, sizeof s->name); /* the starter sets it after the start */
        sched_yield();
    }
    return NULL;
}

static seen start_looking(int cpu) {
    seen s = {0};
    vd_thread thread;
    vd_error err;
    assert_int_equal(vd_thread_start(&thread, "a name longer than the system takes", cpu, look, &s, &err),
                     VD_OK);
    assert_true(thread.running);
    vd_thread_join(&thread);
    assert_false(thread.running);
    vd_thread_join(&thread);
    return s;
}

static void threads_are_named_pinned_and_deaf(void **state) {
    (void)state;
    int cpus[1];
    int count = vd_usable_cpus(cpus, 1);
    seen s = start_looking(cpus[0]);
    assert_string_equal(s.name, "a name longer t");
    assert_int_equal(s.cpus, 1);
    assert_int_equal(s.cpu, cpus[0]);
    assert_true(s.terminate_blocked);
    s = start_looking(VD_ANY_CPU);
    assert_int_equal(s.cpus, count);
    s = start_looking(CPU_SETSIZE - 1); /* no such CPU: runs all the same */
    assert_int_equal(s.cpus, count);
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    assert_false(sigismember(&mask, SIGTERM));
}

static void usable_cpus_are_those_of_the_mask(void **state) {
    (void)state;
    cpu_set_t all, one;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    int cpus[CPU_SETSIZE];
    int count = vd_usable_cpus(cpus, CPU_SETSIZE);
    assert_int_equal(count, CPU_COUNT(&all));
    for (int i = 0; i < count; i++) {
        assert_true(CPU_ISSET(cpus[i], &all));
        for (int k = 0; k < i; k++)
            assert_int_not_equal(cpus[i], cpus[k]);
    }
    CPU_ZERO(&one);
    CPU_SET(cpus[count - 1], &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    int only = -1, last = cpus[count - 1];
    assert_int_equal(vd_usable_cpus(&only, 1), 1);
    assert_int_equal(only, last);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
}

/* Of each CPU kept, the kernel says that it is the node's; a node that is not there changes nothing. */
static void staying_near_a_node(void **state) {
    (void)state;
    cpu_set_t all, kept;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    for (int node = -1; node < 64; node++) {
        char path[96];
        vd_thread_stay_near(node);
        assert_int_equal(sched_getaffinity(0, sizeof kept, &kept), 0);
        snprintf(path, sizeof path, "/sys/devices/system/node/node%d", node);
        if (access(path, F_OK) != 0)
            assert_true(CPU_EQUAL(&kept, &all));
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
            assert_true(!CPU_ISSET(cpu, &kept) || CPU_ISSET(cpu, &all));
            snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpu%d", node, cpu);
            if (!CPU_EQUAL(&kept, &all) &&
                CPU_ISSET(cpu, &kept) != (access(path, F_OK) == 0 && CPU_ISSET(cpu, &all)))
                fail_msg("node %d: CPU %d", node, cpu);
        }
        assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
    }
}

static void parking_returns_when_it_should(void **state) {
    (void)state;
    _Atomic uint32_t word = 5;
    vd_park(&word, 4, -1); /* not the expected value: no sleep */
    double before = vd_now();
    while (vd_now() - before < 0.01) /* an early return is allowed */
        vd_park(&word, 5, 10000000);
    assert_true(vd_now() - before < 5);
}

static void *raise_word(void *argument) {
    _Atomic uint32_t *word = argument;
    atomic_store(word, 1);
    vd_wake_all(word);
    return NULL;
}

static void waking_ends_a_park(void **state) {
    (void)state;
    for (int i = 0; i < 200; i++) {
        _Atomic uint32_t word = 0;
        vd_thread thread;
        vd_error err;
        assert_int_equal(vd_thread_start(&thread, "raiser", VD_ANY_CPU, raise_word, &word, &err), VD_OK);
        while (atomic_load(&word) == 0)
            vd_park(&word, 0, -1);
        vd_thread_join(&thread);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_are_named_pinned_and_deaf),
        cmocka_unit_test(usable_cpus_are_those_of_the_mask),
        cmocka_unit_test(staying_near_a_node),
        cmocka_unit_test(parking_returns_when_it_should),
        cmocka_unit_test(waking_ends_a_park),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
