/* The program from outside, with the sample model, on the smallest videos that go the whole way. */
#include "app/shell.h"

#include <jansson.h>
#include <signal.h>
#include <time.h>

#define TINY "$V -W 64 -H 64 --frames 2 --steps 2 --gpus 2 "

static json_t *load(const char *path) {
    json_error_t where;
    json_t *value = json_load_file(path, 0, &where);
    if (!value)
        fail_msg("%s: %s", path, where.text);
    return value;
}

static void assert_keys(const json_t *object, const char *keys) {
    char *copy = strdup(keys), *rest = copy;
    for (char *key = strtok_r(copy, " ", &rest); key; key = strtok_r(NULL, " ", &rest))
        if (!json_object_get(object, key))
            fail_msg("'%s' is missing", key);
    free(copy);
}

static const json_t *at(const json_t *value, const char *key, size_t index) {
    return json_array_get(json_object_get(value, key), index);
}

static void test_files_and_report(void **state) {
    (void)state;
    expect(TINY "--samples 2 --seed 41 --format png,latents --report r.json", 0,
           "out/ball-s41\nout/ball-s41.safetensors\nout/ball-s42\nout/ball-s42.safetensors\n",
           "no GPU: using 2 virtual");
    expect("ls out out/ball-s42", 0, "frame-000.png", "");
    json_t *r = load("r.json");
    assert_keys(r, "version commit build command machine devices model settings mode samples timing");
    assert_keys(at(r, "devices", 1), "name busy_s busy_share planned_bytes peak_bytes");
    assert_keys(at(r, "links", 0), "from to route damaged bytes_per_s latency_s");
    assert_string_equal(json_string_value(json_object_get(at(r, "links", 0), "route")), "local");
    assert_keys(
        at(r, "samples", 1),
        "index seed image files latents_hash devices decoded_again admitted_s first_step_s finished_s error");
    assert_keys(json_object_get(r, "timing"), "load_s warmup_s wall_s first_sample_s steady_interval_s "
                                              "throughput_sps latency_p50_s latency_p95_s fill_s "
                                              "drain_s bubble_share step_median_s");
    assert_int_equal(json_integer_value(json_object_get(at(r, "samples", 1), "seed")), 42);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(r, "settings"), "steps")), 2);
    assert_true(json_is_null(json_object_get(at(r, "samples", 0), "error")));
    assert_int_equal(json_array_size(json_object_get(at(r, "samples", 0), "files")), 2);
    json_decref(r);
}

static void test_settings_beside_the_video(void **state) {
    (void)state;
    expect(TINY "--format latents -o big-seed -q --seed 18446744073709551615", 0, "big-seed.safetensors\n",
           "");
    json_t *settings = load("big-seed.json");
    assert_keys(settings, "vdpp model image seed width height frames steps fps motion noise_aug guidance");
    assert_string_equal(json_string_value(json_object_get(settings, "seed")), "18446744073709551615");
    json_decref(settings);
    expect("cp \"$(dirname $V)/samples/images/ball.png\" \"$(printf 'b\\377.png')\"", 0, "", "");
    expect(TINY "--format latents -o odd -q -i \"$(printf 'b\\377.png')\"", 0, "odd.safetensors\n", "");
    settings = load("odd.json");
    assert_string_equal(json_string_value(json_object_get(settings, "image")), "b\\xff.png");
    json_decref(settings);
}

static void test_refused_before_the_first_job(void **state) {
    (void)state;
    expect("printf '{\"steps\":2,\"output\":\"s2\"}\\n{\"steps\":3,\"output\":\"s3\"}\\n' >split.jsonl", 0,
           "", "");
    expect(TINY "--format latents --jobs split.jsonl --split 1,1", 64, "", "--split adds up to 2 steps");
    expect("test -e s2.safetensors", 1, "", "");
    expect(TINY "--inject nonsense", 64, "", "--inject nonsense");
    expect(TINY "--inject cpu:9:launch-fails:1", 64, "", "--inject cpu:9");
}

static void test_summary(void **state) {
    static const char *const figures[] = {
        "wall clock", "first result", "steady interval", "latency p50 / p95", "bubble share",
        "cpu:1",      "hash",         "1 of 1 made"};
    (void)state;
    outcome o = run(TINY "--format latents -o summary");
    assert_int_equal(o.code, 0);
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++)
        if (!strstr(o.err, figures[i]))
            fail_msg("'%s' is not in the summary:\n%s", figures[i], o.err);
    outcome_free(&o);
    expect(TINY "--format latents -o quiet -q", 0, "quiet.safetensors\n", "");
}

static void test_progress_on_a_terminal(void **state) {
    (void)state;
    expect(TINY "--format latents -o rows --progress on", 0, NULL, "total    ");
    expect(TINY "--format latents -o line --progress auto", 0, NULL, "sample 0 finished after ");
}

static void test_overwriting(void **state) {
    (void)state;
    expect(TINY "--format latents -o twice -q", 0, "twice.safetensors", "");
    expect("cksum twice.safetensors >first", 0, "", "");
    expect(TINY "--format latents -o twice -q --seed 9", 73, "", "-y");
    expect("cksum twice.safetensors | cmp - first", 0, "", "");
    expect(TINY "--format latents -o twice -q --seed 9 -y", 0, "twice.safetensors", "");
    expect("cksum twice.safetensors | cmp -s - first", 1, "", "");
}

static void test_dry_run_makes_nothing(void **state) {
    (void)state;
    expect(TINY "--samples 3 -o dry/{seed} --report dry.json --dump dry --dry-run -q", 0, "cpu:1", "");
    expect("test ! -e dry -a ! -e dry.json", 0, "", "");
}

static void test_jobs(void **state) {
    (void)state;
    expect("printf '{\"seed\": 5, \"samples\": 2}\\n{\"steps\": 3, \"output\": \"jobs/b\"}\\n' | " TINY
           "-q --jobs - --format latents -o jobs/{index} --report jobs.json",
           0, "jobs/000.safetensors\njobs/001.safetensors\njobs/b.safetensors\n", "");
    json_t *r = load("jobs.json");
    assert_int_equal(json_integer_value(json_object_get(at(r, "samples", 1), "seed")), 6);
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(at(r, "samples", 2), "settings"), "steps")), 3);
    json_decref(r);
}

static void test_some_and_all_failing(void **state) {
    (void)state;
    expect("echo text >bad.png", 0, "", "");
    expect(TINY "-q -i bad.png -o all-{stem} --format latents", 65, "", "bad.png");
    expect(TINY "-q -i gone.png -o all-{stem} --format latents", 66, "", "gone.png");
    expect("cp ${V%/*}/samples/images/ball.png good.png", 0, "", "");
    expect(TINY "-q -i bad.png -i good.png -o some-{stem} --format latents --report some.json", 1,
           "some-good.safetensors\n", "1 of 2");
    json_t *r = load("some.json");
    assert_true(json_is_string(json_object_get(at(r, "samples", 0), "error")));
    assert_true(json_is_null(json_object_get(at(r, "samples", 1), "error")));
    json_decref(r);
}

static void test_latent_shape(void **state) {
    (void)state;
    expect("$V -q --latent-shape 2 4 3 8 16 --steps 1 --output-dir latents", 0,
           "latents/latents-s0.safetensors\nlatents/latents-s1.safetensors\n", "");
    expect("head -c 300 latents/latents-s0.safetensors | tr -d '\\0'", 0, "[1,3,4,8,16]", "");
    expect("$V -q --latent-shape 2 3 3 8 16", 64, "", "the model's latents have 4 channels");
}

static void test_dump(void **state) {
    (void)state;
    expect(TINY "-q --format latents -o dumped --dump dump", 0, "dumped.safetensors\n", "");
    expect(TINY "-q --format latents -o again --dump dump", 73, "",
           "--dump: 'dump/sample-000.safetensors' exists");
    expect(TINY "-q --format latents -o again --dump /proc/dump", 73, "", "--dump: ");
    static const char *const names[] = {"clip_pixels", "image_embeds", "vae_input", "image_latents",
                                        "noise",       "sigmas",       "timesteps", "time_ids",
                                        "unet_in.0",   "unet_out.0",   "unet_in.1", "unet_out.1",
                                        "latents.0",   "latents.1",    "latents",   "frames"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char command[160];
        snprintf(command, sizeof command, "head -c 8192 dump/sample-000.safetensors | grep -aqF '\"%s\"'",
                 names[i]);
        expect(command, 0, "", "");
    }
}

/* A run that takes long enough to be interrupted, in the background of this process. */
static pid_t start_long_run(const char *name) {
    char command[512];
    snprintf(
        command, sizeof command,
        "exec $V -W 64 -H 64 --frames 2 --steps 40 --samples 400 --gpus 2 --progress off --format latents -o "
        "'%s/{seed}' --report %s.json >%s.out 2>%s.err",
        name, name, name, name);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    char path[64];
    snprintf(path, sizeof path, "%s/0.safetensors", name);
    for (int i = 0; i < 6000 && access(path, F_OK) != 0; i++)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    assert_int_equal(access(path, F_OK), 0);
    return child;
}

static int wait_for(pid_t child) {
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void test_interrupt_once(void **state) {
    (void)state;
    pid_t child = start_long_run("once");
    kill(child, SIGINT);
    assert_int_equal(wait_for(child), 75);
    expect("cat once.err", 0, "interrupted: finishing what is in flight", "");
    expect("find once -name '*.tmp'", 0, "", "");
    json_t *r = load("once.json");
    int made = 0;
    for (size_t i = 0; i < 400; i++)
        made += json_is_null(json_object_get(at(r, "samples", i), "error"));
    assert_in_range(made, 1, 399);
    json_decref(r);
}

static void test_interrupt_twice(void **state) {
    (void)state;
    pid_t child = start_long_run("twice-interrupted");
    kill(child, SIGTERM);
    kill(child, SIGINT);
    assert_int_equal(wait_for(child), 130);
    expect("find twice-interrupted -name '*.tmp'", 0, "", "");
}

static void test_output_that_cannot_be_written(void **state) {
    (void)state;
    assert_int_equal(shell(TINY "-q --format latents -o lost >/dev/full 2>.err"), 74);
    assert_int_equal(shell(TINY "-q --format latents -o closed >&- 2>.err"), 74);
    expect("ls lost.safetensors closed.safetensors", 0, NULL, "");
    expect("ulimit -f 1; " TINY "-q --format latents -W 256 -H 256 -o large", 74, "", "File too large");
    expect("ls -A | grep large", 1, "", "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_and_report),
        cmocka_unit_test(test_settings_beside_the_video),
        cmocka_unit_test(test_refused_before_the_first_job),
        cmocka_unit_test(test_summary),
        cmocka_unit_test(test_progress_on_a_terminal),
        cmocka_unit_test(test_overwriting),
        cmocka_unit_test(test_dry_run_makes_nothing),
        cmocka_unit_test(test_jobs),
        cmocka_unit_test(test_some_and_all_failing),
        cmocka_unit_test(test_latent_shape),
        cmocka_unit_test(test_dump),
        cmocka_unit_test(test_interrupt_once),
        cmocka_unit_test(test_interrupt_twice),
        cmocka_unit_test(test_output_that_cannot_be_written),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
