/* The option table: every kind of value, every kind of mistake, and the order of arguments and variables. */
#include "app/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { WORDS = 16 };

/* Parses `line`, whose words blanks part. The words live in `store` as long as the options do. */
static vd_code parse_with(const char *line, unsigned where, char *(*variable)(const char *),
                          vd_options *options, char store[512], vd_error *err) {
    char *words[WORDS], *rest = NULL;
    int count = 0;
    snprintf(store, 512, "%s", line);
    for (char *word = strtok_r(store, " ", &rest); word && count < WORDS; word = strtok_r(NULL, " ", &rest))
        words[count++] = word;
    vd_options_init(options);
    return vd_options_parse(options, where, count, words, variable, err);
}

static vd_code parse(const char *line, unsigned where, vd_options *options, char store[512], vd_error *err) {
    return parse_with(line, where, NULL, options, store, err);
}

static const struct {
    const char *line, *says;
} mistakes[] = {
    {"--width 1001", "--width '1001': must be a multiple of 8; nearest: 1000 or 1008"},
    {"-W 0", "must be from 8 to 8192; nearest: 8"},
    {"-W 99999999999999999999", "nearest: 8192"},
    {"--steps 0", "--steps '0': must be from 1 to 1000; nearest: 1"},
    {"--steps 2.5", "nearest: 3"},
    {"--steps 25x", "not a whole number"},
    {"--steps nan", "not a whole number"},
    {"--steps= --frames 2", "--steps '': not a whole number"},
    {"--frames 1e99", "nearest: 1024"},
    {"--seed -2", "-1 for a random one"},
    {"--seed 18446744073709551616", "0 to 18446744073709551615"},
    {"--fps nan", "not a number"},
    {"--fps inf", "not a number"},
    {"--fps 1e400", "not a number"},
    {"--fps 0", "nearest: 1"},
    {"--noise-aug -1", "nearest: 0"},
    {"--guidance 3:", "not a number"},
    {"--guidance :3", "not a number"},
    {"--guidance 0:3", "more than 0"},
    {"--guidance 1:2:3", "not a number"},
    {"--parallel ring", "give one of pipeline|data|wrap|auto"},
    {"--parallel pipeline|data", "unknown"},
    {"--fit=", "unknown"},
    {"--dtype int8", "fp32|fp16|bf16"},
    {"--format mp4,avi", "'avi' is not a format"},
    {"--format latents,latents", "named twice"},
    {"--format latents,", "'' is not a format"},
    {"--gpus 1,x", "not a whole number"},
    {"--gpus 1,,2", "not a whole number"},
    {"--split 5,-1", "nearest: 0"},
    {"--latent-shape 1 4 14 8", "needs 5 values"},
    {"--latent-shape 1 4 14 0 8", "H '0'"},
    {"--latent-shape=1", "separate arguments"},
    {"-i -", "read from files only"},
    {"-i https://example.org/a.png", "read from files only"},
    {"--stps 3", "unknown option '--stps'; did you mean --steps?"},
    {"--num-frame 3", "did you mean --num-frames?"},
    {"--metaphysics", "vdpp --help lists them all"},
    {"--injct x", "vdpp --help lists them all"},
    {"-Z", "unknown option '-Z'"},
    {"-yZ", "unknown option '-Z'"},
    {"--steps", "--steps needs a value: N"},
    {"-n", "--samples needs a value: N"},
    {"--output --steps", "--output needs a value"},
    {"--dry-run=1", "takes no value"},
    {"fox.png", "unexpected argument 'fox.png'"},
    {"--", "unexpected argument '--'"},
    {"--cost step=1", "unknown option '--cost'"},
};

static void test_mistakes_are_named(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        vd_options options;
        vd_error err = {0};
        char store[512];
        assert_int_equal(parse(mistakes[i].line, VD_IN_RUN, &options, store, &err), VD_ERR_USAGE);
        if (!strstr(err.message, mistakes[i].says))
            fail_msg("%s: '%s' does not say '%s'", mistakes[i].line, err.message, mistakes[i].says);
        vd_options_free(&options);
    }
}

static void test_empty_values_are_refused(void **state) {
    static const char *const names[] = {"--image",  "--output", "--model",  "--jobs",
                                        "--report", "--dump",   "--samples"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *arguments[] = {(char *)names[i], (char *)""};
        vd_options options;
        vd_error err = {0};
        vd_options_init(&options);
        assert_int_equal(vd_options_parse(&options, VD_IN_RUN, 2, arguments, NULL, &err), VD_ERR_USAGE);
        vd_options_free(&options);
    }
}

static void test_huge_argument(void **state) {
    enum { HUGE_BYTES = 2 << 20 };
    char *text = malloc(HUGE_BYTES + 1);
    (void)state;
    assert_non_null(text);
    memset(text, '9', HUGE_BYTES);
    text[HUGE_BYTES] = '\0';
    static const char *const names[] = {"--steps",    "--fps",      "--gpus", "--format",
                                        "--guidance", "--parallel", "--seed"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *arguments[] = {(char *)names[i], text};
        vd_options options;
        vd_error err = {0};
        vd_options_init(&options);
        assert_int_equal(vd_options_parse(&options, VD_IN_RUN, 2, arguments, NULL, &err), VD_ERR_USAGE);
    }
    memcpy(text, "--", 2);
    vd_options options;
    vd_error err = {0};
    assert_int_equal(vd_options_parse(&options, VD_IN_RUN, 1, &text, NULL, &err), VD_ERR_USAGE);
    free(text);
}

static void test_values_arrive(void **state) {
    vd_options o;
    vd_error err = {0};
    char store[512];
    (void)state;
    assert_int_equal(
        parse("-i a.png --image=b.png -n3 -s 18446744073709551615 -W 1024 -H 576 -yv --steps 25 --motion 0",
              VD_IN_RUN, &o, store, &err),
        VD_OK);
    assert_int_equal(o.image_count, 2);
    assert_string_equal(o.images[1], "b.png");
    assert_int_equal(o.request.samples, 3);
    assert_true(o.request.seed == UINT64_MAX && !o.request.random_seed);
    assert_int_equal(o.request.job.width, 1024);
    assert_int_equal(o.request.job.height, 576);
    assert_true(o.overwrite && o.verbose && !o.quiet);
    assert_int_equal(o.request.job.motion, -1); /* vdpp_job writes 0 so */
    vd_options_free(&o);

    assert_int_equal(parse("--gpus 0,2,5 --split 4,0,21 --latent-shape 2 4 14 72 128 -s -1 --noise-aug 0",
                           VD_IN_RUN, &o, store, &err),
                     VD_OK);
    assert_int_equal(o.gpus.count, 3);
    assert_int_equal(o.gpus.values[2], 5);
    assert_int_equal(o.split.values[1], 0);
    assert_int_equal(o.latent_shape.count, 2);
    assert_int_equal(o.latent_shape.width, 128);
    assert_true(o.request.random_seed);
    assert_true(o.request.job.noise_aug < 0);
}

static void test_guidance(void **state) {
    static const struct {
        const char *line;
        double min, max;
    } cases[] = {
        {"--guidance 1:3", 1, 3},     {"--guidance 1.5:2.5", 1.5, 2.5}, {"--guidance-scale 4", 1, 4},
        {"--guidance-scale 0", 1, 1}, {"--guidance 0:1", 1, 1},         {"--guidance 3:1.5", 3, 1.5},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vd_options o;
        vd_error err = {0};
        char store[512];
        assert_int_equal(parse(cases[i].line, VD_IN_RUN, &o, store, &err), VD_OK);
        assert_true(o.request.job.guidance_min == cases[i].min && o.request.job.guidance_max == cases[i].max);
    }
}

static void test_predecessors_names(void **state) {
    vd_options o;
    vd_error err = {0};
    char store[512];
    (void)state;
    assert_int_equal(parse("--num-samples 2 --num-frames 14 --total-steps 28 --motion-bucket-id 100 "
                           "--noise-aug-strength 0.05 --guidance-scale 2",
                           VD_IN_RUN, &o, store, &err),
                     VD_OK);
    assert_int_equal(o.request.samples, 2);
    assert_int_equal(o.request.job.frames, 14);
    assert_int_equal(o.request.job.steps, 28);
    assert_int_equal(o.request.job.motion, 100);
    assert_true(o.request.job.noise_aug == 0.05);
    assert_true(o.request.job.guidance_max == 2);
}

static void test_plan_has_its_own_options(void **state) {
    vd_options o;
    vd_error err = {0};
    char store[512];
    (void)state;
    assert_int_equal(parse("--gpus 7 --samples 10 --steps 28 --format json --cost decode=2,encode=0.5",
                           VD_IN_PLAN, &o, store, &err),
                     VD_OK);
    assert_string_equal(o.text_format, "json");
    assert_true(o.costs.encode == 0.5 && o.costs.step == 1 && o.costs.decode == 2 && o.costs.handoff == 0);
    assert_int_equal(parse("--format mp4", VD_IN_PLAN, &o, store, &err), VD_ERR_USAGE);
    assert_int_equal(parse("-m model", VD_IN_PLAN, &o, store, &err), VD_ERR_USAGE);
    assert_int_equal(parse("--cost steps=1", VD_IN_PLAN, &o, store, &err), VD_ERR_USAGE);
    assert_int_equal(parse("--cost step=0", VD_IN_PLAN, &o, store, &err), VD_ERR_USAGE);
    assert_int_equal(parse("--cost step=1,", VD_IN_PLAN, &o, store, &err), VD_ERR_USAGE);
}

static char *some_variables(const char *name) {
    static const char *const variables[][2] = {
        {"VDPP_STEPS", "7"},    {"VDPP_IMAGE", "env.png"}, {"VDPP_OVERWRITE", "0"},
        {"VDPP_DRY_RUN", "On"}, {"VDPP_NOISE_AUG", "0.1"}, {"VDPP_FORMAT", "latents"},
        {"VDPP_MODEL", ""},
    };
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        if (strcmp(name, variables[i][0]) == 0)
            return (char *)variables[i][1];
    return NULL;
}

static char *bad_switch(const char *name) {
    return strcmp(name, "VDPP_OVERWRITE") == 0 ? (char *)"maybe" : NULL;
}

static char *bad_number(const char *name) {
    return strcmp(name, "VDPP_STEPS") == 0 ? (char *)"many" : NULL;
}

static void test_variables_stand_behind_arguments(void **state) {
    vd_options o;
    vd_error err = {0};
    char store[512];
    (void)state;
    assert_int_equal(parse_with("--steps 9 -i arg.png", VD_IN_RUN, some_variables, &o, store, &err), VD_OK);
    assert_int_equal(o.request.job.steps, 9);
    assert_int_equal(o.image_count, 1);
    assert_string_equal(o.images[0], "arg.png");
    assert_false(o.overwrite); /* "0" is off, however present */
    assert_true(o.dry_run);
    assert_true(o.request.job.noise_aug == 0.1);
    assert_null(o.model);
    vd_options_free(&o);
    assert_int_equal(parse_with("", VD_IN_PLAN, some_variables, &o, store, &err), VD_OK);
    assert_null(o.text_format); /* VDPP_FORMAT is about videos */
    assert_int_equal(o.request.job.steps, 7);
    assert_int_equal(parse_with("", VD_IN_RUN, bad_switch, &o, store, &err), VD_ERR_USAGE);
    assert_non_null(strstr(err.message, "VDPP_OVERWRITE='maybe'"));
    assert_int_equal(parse_with("", VD_IN_RUN, bad_number, &o, store, &err), VD_ERR_USAGE);
    assert_non_null(strstr(err.message, "VDPP_STEPS='many'"));
}

/* Names, letters and aliases mean one thing in each place, and every row that help shows says something. */
static void test_table_is_consistent(void **state) {
    (void)state;
    for (int i = 0; i < vd_option_count; i++) {
        const vd_option *a = &vd_option_table[i];
        assert_true((a->value != NULL) == (a->value_count > 0));
        assert_true(a->help || a->where & VD_HIDDEN || a->where == VD_IN_JOB);
        for (int k = i + 1; k < vd_option_count; k++) {
            const vd_option *b = &vd_option_table[k];
            if (!(a->where & b->where & (VD_IN_RUN | VD_IN_PLAN | VD_IN_JOB)))
                continue;
            assert_string_not_equal(a->name, b->name);
            assert_false(a->letter && a->letter == b->letter);
            assert_false(b->alias && strcmp(a->name, b->alias) == 0);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mistakes_are_named),
        cmocka_unit_test(test_empty_values_are_refused),
        cmocka_unit_test(test_huge_argument),
        cmocka_unit_test(test_values_arrive),
        cmocka_unit_test(test_guidance),
        cmocka_unit_test(test_predecessors_names),
        cmocka_unit_test(test_plan_has_its_own_options),
        cmocka_unit_test(test_variables_stand_behind_arguments),
        cmocka_unit_test(test_table_is_consistent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
