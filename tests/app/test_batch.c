/* Job files, lists of images, and what is refused before any work. */
#include "app/batch.h"
#include "base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static vd_code parse_jobs(const char *text, vd_batch *batch, vd_error *err) {
    vd_options defaults;
    vd_options_init(&defaults);
    defaults.request.job.steps = 11;
    defaults.request.job.image = "default.png";
    *batch = (vd_batch){0};
    return vd_batch_parse_jobs(batch, &defaults.request, text, strlen(text), "jobs.jsonl", err);
}

static void test_job_lines(void **state) {
    static const char text[] =
        "\n"
        "{\"image\": \"fox.png\", \"seed\": 7, \"samples\": 2, \"guidance\": \"1:2.5\", \"fps\": 6.5}\r\n"
        "  \t\n"
        "{\"num-frames\": 25, \"width\": 512, \"fit\": \"pad\", \"output\": \"o/{stem}.gif\"}\n"
        "{\"seed\": \"18446744073709551615\", \"guidance\": 1, \"steps\": 4.0}";
    vd_batch b;
    vd_error err = {0};
    (void)state;
    assert_int_equal(parse_jobs(text, &b, &err), VD_OK);
    assert_int_equal(b.job_count, 3);
    assert_string_equal(b.jobs[0].job.image, "fox.png");
    assert_int_equal(b.jobs[0].samples, 2);
    assert_true(b.jobs[0].job.guidance_max == 2.5 && b.jobs[0].job.fps == 6.5);
    assert_int_equal(b.jobs[0].job.steps, 11);
    assert_string_equal(b.jobs[1].job.image, "default.png");
    assert_int_equal(b.jobs[1].job.frames, 25);
    assert_string_equal(b.jobs[1].output, "o/{stem}.gif");
    assert_true(b.jobs[2].seed == UINT64_MAX);
    assert_int_equal(b.jobs[2].job.steps, 4);
    vd_batch_free(&b);
}

static void test_bad_job_lines(void **state) {
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "has no jobs"},
        {"\n \n", "has no jobs"},
        {"{}\n{", "jobs.jsonl:2"},
        {"[]", "jobs.jsonl:1: not an object"},
        {"{} {}", "jobs.jsonl:1"},
        {"{\"stps\": 3}", "jobs.jsonl:1: unknown key 'stps'; did you mean 'steps'?"},
        {"{\"model\": \"x\"}", "unknown key 'model'"},
        {"{\"inject\": \"x\"}", "unknown key 'inject'"},
        {"{\"steps\": 3, \"steps\": 4}", "jobs.jsonl:1"},
        {"{\"steps\": \"3\"}", "'steps': expected a number"},
        {"{\"steps\": null}", "'steps': expected a number"},
        {"{\"steps\": true}", "'steps': expected a number"},
        {"{\"steps\": 2.5}", "'steps' is '2.5'"},
        {"{\"steps\": 0}", "must be from 1 to 1000"},
        {"{\"steps\": 1e400}", "jobs.jsonl:1"},
        {"{\"steps\": NaN}", "jobs.jsonl:1"},
        {"{\"seed\": 1.5}", "'seed' is '1.5'"},
        {"{\"seed\": 99999999999999999999}", "jobs.jsonl:1"},
        {"{\"image\": 5}", "'image': expected a string"},
        {"{\"image\": \"\"}", "empty"},
        {"{\"image\": \"a\\u0000b\"}", "jobs.jsonl:1"},
        {"{\"image\": \"\xff\"}", "jobs.jsonl:1"},
        {"{\"width\": 100}", "nearest: 96 or 104"},
        {"{\"\\u001b[31m\": 1}", "unknown key '\\x1b[31m'"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vd_batch b;
        vd_error err = {0};
        assert_int_equal(parse_jobs(cases[i].text, &b, &err), VD_ERR_DATA);
        if (!strstr(err.message, cases[i].says))
            fail_msg("%s: '%s' does not say '%s'", cases[i].text, err.message, cases[i].says);
        vd_batch_free(&b);
    }
}

/* A batch of the options, in a folder of its own that `state` names. */
static vd_code build(vd_options *options, vd_batch *batch, vd_error *err) {
    const vd_batch_context context = {"sample.png", 2};
    *batch = (vd_batch){0};
    vd_code code = vd_batch_build(options, &context, batch, err);
    return code == VD_OK ? vd_batch_check_outputs(batch, options->overwrite, err) : code;
}

static void write_file(const char *path) {
    vd_error err;
    assert_int_equal(vd_file_write(path, "x\n", 2, true, &err), VD_OK);
}

static void test_samples_are_seeded_and_named(void **state) {
    vd_options o;
    vd_batch b;
    vd_error err = {0};
    (void)state;
    vd_options_init(&o);
    o.request.samples = 3;
    o.request.seed = UINT64_MAX - 1;
    o.formats = "latents,png";
    assert_int_equal(build(&o, &b, &err), VD_OK);
    assert_int_equal(b.sample_count, 3);
    assert_string_equal(b.samples[0].output, "out/sample-s18446744073709551614");
    assert_string_equal(b.samples[2].output, "out/sample-s0"); /* seeds wrap */
    assert_string_equal(b.format_list, "latents,png");
    vd_batch_free(&b);
    o.request.output = "{index}.safetensors";
    o.output_dir = "elsewhere";
    assert_int_equal(build(&o, &b, &err), VD_OK);
    assert_string_equal(b.samples[1].output, "elsewhere/001");
    vd_batch_free(&b);
    o.formats = NULL;
    assert_int_equal(build(&o, &b, &err), VD_OK);
    assert_string_equal(b.format_list, "latents");
    vd_batch_free(&b);
    o.formats = "png";
    assert_int_equal(build(&o, &b, &err), VD_ERR_USAGE);
    assert_non_null(strstr(err.message, "is no png"));
    vd_batch_free(&b);
}

static void test_drawn_seeds_differ(void **state) {
    vd_options o;
    vd_batch a, b;
    vd_error err = {0};
    (void)state;
    vd_options_init(&o);
    o.request.random_seed = true;
    assert_int_equal(build(&o, &a, &err), VD_OK);
    assert_int_equal(build(&o, &b, &err), VD_OK);
    assert_true(a.samples[0].seed != b.samples[0].seed);
    vd_batch_free(&a);
    vd_batch_free(&b);
}

static void test_images(void **state) {
    vd_options o;
    vd_batch b;
    vd_error err = {0};
    (void)state;
    write_file("pictures/b.JPG");
    write_file("pictures/a.png");
    write_file("pictures/notes.txt");
    assert_int_equal(vd_file_write("list.txt", "one.png\r\n\n two.png\n", 19, true, &err), VD_OK);
    const char *images[] = {"fox.png", "pictures", "@list.txt"};
    vd_options_init(&o);
    o.images = images;
    o.image_count = 3;
    assert_int_equal(build(&o, &b, &err), VD_OK);
    static const char *const expected[] = {"fox.png", "pictures/a.png", "pictures/b.JPG", "one.png",
                                           " two.png"};
    assert_int_equal(b.sample_count, 5);
    for (int i = 0; i < 5; i++)
        assert_string_equal(b.samples[i].job->image, expected[i]);
    vd_batch_free(&b);
    const char *missing[] = {"@nowhere.txt"};
    o.images = missing;
    o.image_count = 1;
    assert_int_equal(build(&o, &b, &err), VD_ERR_NO_INPUT);
    vd_batch_free(&b);
}

static void test_refused_before_work(void **state) {
    vd_options o;
    vd_batch b;
    vd_error err = {0};
    (void)state;
    vd_options_init(&o);
    o.formats = "latents";
    o.request.samples = 2;
    o.request.output = "same";
    assert_int_equal(build(&o, &b, &err), VD_ERR_USAGE);
    assert_non_null(strstr(err.message, "samples 0 and 1"));
    vd_batch_free(&b);

    o.request.output = "old-{seed}";
    write_file("old-1.safetensors");
    assert_int_equal(build(&o, &b, &err), VD_ERR_CANNOT_CREATE);
    assert_non_null(strstr(err.message, "-y"));
    vd_batch_free(&b);
    o.overwrite = true;
    assert_int_equal(build(&o, &b, &err), VD_OK);
    vd_batch_free(&b);

    o.request.output = "old-1.safetensors/x-{seed}"; /* a file in the way of a folder */
    assert_int_equal(build(&o, &b, &err), VD_ERR_CANNOT_CREATE);
    vd_batch_free(&b);

    char name[400] = "{seed}";
    memset(name + 6, 'n', 300);
    o.request.output = name;
    assert_int_equal(build(&o, &b, &err), VD_ERR_CANNOT_CREATE);
    vd_batch_free(&b);

    const char *input[] = {"input.safetensors"};
    write_file(input[0]);
    o.images = input;
    o.image_count = 1;
    o.request.samples = 1;
    o.request.output = "input";
    assert_int_equal(build(&o, &b, &err), VD_ERR_USAGE);
    assert_non_null(strstr(err.message, "input image"));
    vd_batch_free(&b);

    o.request.output = NULL;
    o.request.samples = VD_SAMPLE_LIMIT;
    const char *two[] = {"a.png", "b.png"};
    o.images = two;
    o.image_count = 2;
    assert_int_equal(build(&o, &b, &err), VD_ERR_USAGE);
    vd_batch_free(&b);
}

static void test_temporaries_are_removed(void **state) {
    vd_options o;
    vd_batch b;
    vd_error err = {0};
    (void)state;
    vd_options_init(&o);
    o.request.output = "t/clip-{seed}";
    o.overwrite = true;
    assert_int_equal(build(&o, &b, &err), VD_OK);
    write_file("t/.clip-0.mp4.vdpp-0a1b2c.tmp");
    write_file("t/.clip-0.vdpp-0a1b2c.tmp/frame-000.png");
    write_file("t/.other.mp4.vdpp-0a1b2c.tmp");
    write_file("t/clip-0.mp4");
    vd_batch_remove_temporaries(&b);
    assert_int_equal(access("t/.clip-0.mp4.vdpp-0a1b2c.tmp", F_OK), -1);
    assert_int_equal(access("t/.clip-0.vdpp-0a1b2c.tmp", F_OK), -1);
    assert_int_equal(access("t/.other.mp4.vdpp-0a1b2c.tmp", F_OK), 0);
    assert_int_equal(access("t/clip-0.mp4", F_OK), 0);
    vd_batch_free(&b);
}

static int enter_folder(void **state) {
    char *folder = strdup("/tmp/vdpp-test-XXXXXX");
    *state = folder;
    return !folder || !mkdtemp(folder) || chdir(folder) != 0;
}

static int leave_folder(void **state) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", (char *)*state);
    free(*state);
    return chdir("/") != 0 || system(command) != 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_job_lines),
        cmocka_unit_test(test_bad_job_lines),
        cmocka_unit_test(test_samples_are_seeded_and_named),
        cmocka_unit_test(test_drawn_seeds_differ),
        cmocka_unit_test(test_images),
        cmocka_unit_test(test_refused_before_work),
        cmocka_unit_test(test_temporaries_are_removed),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
