/* Choosing devices, their order, the ways between them, and memory that is theirs alone. */
#include "engine/studio.h"

#include "base/thread.h"
#include "engine/pretend.h"

enum { LINES = 64 };

/* ---- choosing ---- */

static void test_order(void **state) {
    (void)state;
    static const struct {
        int count, nodes[8], wanted, order[8];
    } cases[] = {
        {7, {0, 0, 0, 0, 1, 1, 1}, 7, {0, 1, 2, 3, 4, 5, 6}}, /* one hop crosses */
        {7, {0, 1, 0, 1, 0, 1, 1}, 7, {0, 2, 4, 1, 3, 5, 6}},
        {7, {0, 0, 0, 0, 1, 1, 1}, 3, {0, 1, 2}},
        {7, {1, 1, 1, 0, 0, 0, 0}, 4, {3, 4, 5, 6}}, /* the node that has enough */
        {7, {1, 1, 1, 0, 0, 0, 0}, 5, {0, 3, 4, 5, 6}},
        {6, {0, 1, 2, 0, 1, 0}, 4, {0, 3, 5, 1}},
        {4, {-1, -1, -1, -1}, 3, {0, 1, 2}},
        {1, {3}, 1, {0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int chosen[8];
        vd_order_devices(cases[i].nodes, cases[i].count, cases[i].wanted, chosen);
        for (int k = 0; k < cases[i].wanted; k++)
            if (chosen[k] != cases[i].order[k])
                fail_msg("case %zu: place %d has device %d, not %d", i, k, chosen[k], cases[i].order[k]);
    }
}

static void test_choice(void **state) {
    (void)state;
    static const char *const names[] = {"cpu:3", "cpu:0", "cuda:0", "cuda:0"};
    static const int gpus[] = {5, 2}, twice[] = {1, 1};
    static const struct {
        const char *device, *const *names;
        const int *gpus;
        int count, code;
        const char *list; /* as chosen, or a part of the message */
    } cases[] = {
        {"cpu", NULL, NULL, 3, 0, "cpu:0 cpu:1 cpu:2 "},
        {"cpu", NULL, gpus, 2, 0, "cpu:5 cpu:2 "},
        {NULL, names, NULL, 2, 0, "cpu:3 cpu:0 "},
        {"cpu", names + 2, NULL, 2, 69, "nowhere.so"}, /* names say more than the kind */
        {NULL, names, NULL, 3, 64, "of one kind"},
        {"cpu", NULL, NULL, 0, 64, "--gpus 0: must be from 1 to 64; nearest: 1"},
        {"cpu", NULL, NULL, 65, 64, "nearest: 64"},
        {"cpu", NULL, twice, 2, 64, "cpu:1 is named twice"},
        {"tpu", NULL, NULL, 1, 64, "--device tpu"},
        {"cuda", NULL, NULL, 1, 69, "--device cpu needs none"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vdpp_options o;
        vdpp_error error = {0};
        vdpp_device_list list;
        char text[256] = "";
        vdpp_options_init(&o);
        o.device = cases[i].device;
        o.devices = cases[i].names;
        o.gpus = cases[i].gpus;
        o.device_count = cases[i].count;
        o.cuda_module = "./nowhere.so";
        int code = vdpp_choose_devices(&o, &list, &error);
        for (int k = 0; k < list.count && code == 0; k++)
            strcat(strcat(text, list.names[k]), " ");
        if (code != cases[i].code || error.code != code ||
            !strstr(code ? error.message : text, cases[i].list))
            fail_msg("case %zu: code %d, %s%s", i, code, text, error.message);
    }
}

/* Without a GPU, "auto" means virtual devices, and says so to whoever asks. */
static void test_fall_back(void **state) {
    (void)state;
    vdpp_options o;
    vdpp_error error;
    vdpp_device_list list;
    vdpp_options_init(&o);
    o.cuda_module = "./nowhere.so";
    assert_int_equal(vdpp_choose_devices(&o, &list, &error), 0);
    assert_true(list.fell_back);
    assert_int_equal(list.count, vd_cpu_count() < 8 ? vd_cpu_count() : 8);
    o.device = "cpu";
    assert_int_equal(vdpp_choose_devices(&o, &list, &error), 0);
    assert_false(list.fell_back);
    o.p2p = "maybe";
    vdpp_engine *engine;
    assert_int_equal(vdpp_open(&o, &engine, &error), 64);
    assert_non_null(strstr(error.message, "--p2p maybe"));
}

/* ---- what a backend says ---- */

typedef struct lines {
    char text[LINES][256];
    int levels[LINES], count;
} lines;

static void keep_line(void *user, int level, const char *line) {
    lines *l = user;
    if (l->count < LINES && strstr(line, " to cpu:")) {
        l->levels[l->count] = level;
        snprintf(l->text[l->count++], sizeof *l->text, "%s", line);
    }
}

static vdpp_engine *open_engine(const studio *s, scene c, lines *l) {
    vdpp_options o = studio_options(s, &c);
    vdpp_engine *engine;
    vdpp_error error;
    o.log = keep_line;
    o.user = l;
    if (vdpp_open(&o, &engine, &error) != 0)
        fail_msg("%s", error.message);
    return engine;
}

/* Every pair that the plan uses is tested once, however many runs there are; the report has them, the log
 * those that do not copy straight. */
static void test_routes(void **state) {
    static const struct {
        vd_route_info route;
        const char *name, *line;
        int level;
    } cases[] = {
        {{VD_ROUTE_PEER, true, false, 22e9, 9e-6}, "peer", NULL, 0},
        {{VD_ROUTE_STAGED, false, false, 11e9, 30e-6},
         "staged",
         "cpu:0 to cpu:1: no peer access",
         VDPP_LOG_INFO},
        {{VD_ROUTE_STAGED, true, true, 0, 0},
         "staged",
         "cpu:0 to cpu:1: peer copies arrive damaged",
         VDPP_LOG_WARNING},
        {{VD_ROUTE_STAGED, true, false, 0, 0}, "staged", NULL, 0}, /* as --p2p off asks */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lines l = {.count = 0};
        scene c = {.devices = 3, .plain = true, .samples = 4};
        vdpp_engine *engine = open_engine(*state, c, &l);
        pretend *p = pretend_open(engine);
        p->route = cases[i].route;
        p->free = SIZE_MAX;
        for (int round = 0; round < 2; round++) {
            take t = studio_make(*state, engine, c);
            if (t.code)
                fail_msg("%s", t.error.message);
            assert_int_equal(p->tested, 2);
            assert_int_equal(t.report->link_count, 2);
            for (int k = 0; k < 2; k++) {
                const vdpp_link_result *link = &t.report->links[k];
                assert_int_equal(link->from, k);
                assert_int_equal(link->to, k + 1);
                assert_string_equal(link->route, cases[i].name);
                assert_int_equal(link->damaged, cases[i].route.damaged);
                assert_true(link->bytes_per_s == cases[i].route.bytes_per_s);
            }
            take_free(&t);
        }
        assert_int_equal(l.count, cases[i].line ? 2 : 0);
        if (cases[i].line && (l.levels[0] != cases[i].level || !strstr(l.text[0], cases[i].line)))
            fail_msg("case %zu: '%s'", i, l.text[0]);
        vdpp_close(engine);
    }
}

/* The code of a plan alone. */
static int describe(vdpp_engine *engine, scene c, char **text, vdpp_error *error) {
    vdpp_job job = studio_job(&c, 0);
    vdpp_sample samples[] = {{&job, 1, "a"}, {&job, 2, "b"}};
    return vdpp_describe(engine, samples, 2, text, error);
}

/* What GPUs do not have free is refused before anything is allocated there, with the device and what would
 * fit. */
static void test_own_memory(void **state) {
    lines l = {.count = 0};
    scene c = {.devices = 2, .plain = true, .samples = 2};
    vdpp_engine *engine = open_engine(*state, c, &l);
    pretend *p = pretend_open(engine);
    p->memory = (vd_backend_memory){.device_weights = 3 << 20, .context = 1 << 20};
    p->free = SIZE_MAX;
    take t = studio_make(*state, engine, c);
    assert_int_equal(t.code, 0);
    size_t planned = t.report->devices[1].planned_bytes, peak = t.report->devices[1].peak_bytes;
    assert_in_range(planned - (3 << 20), peak, peak + peak / 10);
    take_free(&t);
    p->free = planned + (1 << 20); /* of the second, which has buffers for what comes in */
    t = studio_make(*state, engine, c);
    assert_int_equal(t.code, 0);
    take_free(&t);
    p->free -= 512;
    t = studio_make(*state, engine, c);
    assert_int_equal(t.code, 69);
    assert_non_null(strstr(t.error.message, "of memory on cpu:1 and"));
    vdpp_close(engine);
}

/* The size that a refusal names does fit. */
static void test_advice(void **state) {
    lines l = {.count = 0};
    scene c = {.devices = 2, .plain = true, .width = 256, .height = 192};
    vdpp_engine *engine = open_engine(*state, c, &l);
    pretend *p = pretend_open(engine);
    char *text;
    vdpp_error error;
    p->memory = (vd_backend_memory){.device_weights = 1 << 20, .context = 1 << 20};
    p->free = 12 << 20;
    assert_int_equal(describe(engine, c, &text, &error), 69);
    free(text);
    const char *advice = strstr(error.message, "free there: -W ");
    if (!advice || sscanf(advice, "free there: -W %d -H %d would fit", &c.width, &c.height) != 2)
        fail_msg("%s", error.message);
    assert_int_equal(describe(engine, c, &text, &error), 0);
    free(text);
    p->free = 2 << 20;
    assert_int_equal(describe(engine, c, &text, &error), 69);
    assert_non_null(strstr(error.message, "weights leave no room"));
    free(text);
    vdpp_close(engine);
}

/* Two stages on one GPU need its memory twice. */
static void test_shared_memory(void **state) {
    lines l = {.count = 0};
    scene c = {.devices = 2, .mode = "data", .plain = true, .samples = 2};
    vdpp_engine *engine = open_engine(*state, c, &l);
    pretend *p = pretend_open(engine);
    char *text;
    vdpp_error error;
    p->free = SIZE_MAX;
    take t = studio_make(*state, engine, c);
    assert_int_equal(t.code, 0);
    p->free = t.report->devices[0].planned_bytes + t.report->devices[1].planned_bytes / 2;
    take_free(&t);
    assert_int_equal(describe(engine, c, &text, &error), 0);
    free(text);
    engine->devices.ordinals[1] = engine->devices.ordinals[0];
    assert_int_equal(describe(engine, c, &text, &error), 69);
    assert_non_null(strstr(error.message, "fewer than 2 stages on it would fit"));
    free(text);
    vdpp_close(engine);
}

/* --dry-run says what is whose. */
static void test_printed_memory(void **state) {
    lines l = {.count = 0};
    scene c = {.devices = 2};
    vdpp_engine *engine = open_engine(*state, c, &l);
    pretend *p = pretend_open(engine);
    p->memory = (vd_backend_memory){.device_weights = 3000000, .context = 1000000};
    p->free = 7000000000;
    char *text;
    vdpp_error error;
    assert_int_equal(describe(engine, c, &text, &error), 0);
    static const char *const words[] = {"weights 3.0 MB", "context 1.0 MB", "7.0 GB free", "on the host"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strstr(text, words[i]))
            fail_msg("'%s' is not in\n%s", words[i], text);
    free(text);
    vdpp_close(engine);
}

static int open_studio(void **state) {
    static studio s;
    s = studio_open();
    *state = &s;
    return 0;
}

static int close_studio(void **state) {
    studio_close(*state);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),         cmocka_unit_test(test_choice),
        cmocka_unit_test(test_fall_back),     cmocka_unit_test(test_routes),
        cmocka_unit_test(test_own_memory),    cmocka_unit_test(test_advice),
        cmocka_unit_test(test_shared_memory), cmocka_unit_test(test_printed_memory)};
    return cmocka_run_group_tests(tests, open_studio, close_studio);
}
