/* The program from outside, without a model being run: usage, plans, and what is refused before any work. */
#include "app/shell.h"

static void test_help_and_version(void **state) {
    (void)state;
    expect("$V --help", 0, "--samples N", "");
    expect("$V -h", 0, "Exit codes:", "");
    expect("$V plan --help", 0, "vdpp plan", "");
    expect("$V --version", 0, "vdpp 0.1.0 (commit ", "");
    expect("$V --help | grep -c inject", 1, "0", "");
}

static void test_usage_errors(void **state) {
    (void)state;
    expect("$V frobnicate", 64, "", "unknown command 'frobnicate'");
    expect("$V fox.png", 64, "", "images are given with -i");
    expect("$V --stps 3", 64, "", "did you mean --steps?");
    expect("$V --width 1000 --height 570", 64, "",
           "--height '570': must be a multiple of 8; nearest: 568 or 576");
    expect("$V --samples", 64, "", "--samples needs a value");
    expect("$V --samples ''", 64, "", "--samples ''");
    expect("$V --seed $(printf '9%.0s' $(seq 60000))", 64, "", "--seed '9999");
    expect("$V --output a.webm", 64, "", "unknown format '.webm'");
    expect("$V --output '{stm}.png'", 64, "", "there are {stem} {seed} {index} {gpus}");
    expect("$V --output dir/", 64, "", "names no file");
    expect("VDPP_OVERWRITE=x $V", 64, "", "VDPP_OVERWRITE='x'");
    expect("VDPP_STEPS=0 $V", 64, "", "VDPP_STEPS='0'");
    expect("VDPP_VERSION=1 VDPP_HELP=1 $V --gpus 0", 64, "", "--gpus 0: must be from 1 to 64");
    expect("$V --device cpu --gpus 0,0", 64, "", "device cpu:0 is named twice");
    expect("$V --devices cpu:0,cpu:00", 64, "", "twice");
    expect("$V --devices cpu:0,gpu:1", 64, "", "device 'gpu:1': must be cpu:N or cuda:N");
    expect("$V --devices cpu:0,", 64, "", "device ''");
    expect("$V --devices cpu:0,cuda:1", 64, "", "all must be of one kind");
    expect("$V --devices cpu:0,cpu:00000000000001", 64, "", "'cpu:00000000000001' is no device");
    expect("$V --devices cpu:0 --gpus 2", 64, "", "give one of them");
    expect("$V --split 12,13 --gpus 3", 64, "", "2 numbers for 3 devices");
    expect("$V --split 12,13 --parallel wrap", 64, "", "means nothing with --parallel wrap");
    expect("$V --latent-shape 1 4 2 8 8 -i a.png", 64, "", "leave out --image");
    expect("$V --latent-shape 1 4 2 8 8 --format gif,latents", 64, "", "no frames for gif");
    expect("$V -o a.gif --format png", 64, "", "is no png");
    expect("$V --samples 2 -o same.png", 64, "", "both be written to 'same'");
    expect("$V -i 'http://example.org/a.png'", 64, "", "read from files only");
}

static void test_devices_and_models_that_are_not_there(void **state) {
    (void)state;
    expect("VDPP_CUDA_MODULE=./nowhere.so $V --device cuda", 69, "", "--device cpu needs none");
    expect("VDPP_CUDA_MODULE=./nowhere.so $V --devices cuda:0", 69, "", "nowhere.so");
    expect("VDPP_CUDA_MODULE=./nowhere.so $V --dry-run -m ./nowhere", 66, "", "no GPU: using ");
    expect("$V -m ./nowhere", 66, "", "model './nowhere'");
    expect("HF_HUB_CACHE=$PWD $V -m some-org/some-model", 66, "", "hf download some-org/some-model");
    expect("mkdir -p empty && $V -i empty", 66, "", "has no PNG or JPEG files");
    expect("test ! -e out", 0, "", "");
}

/* On a machine without GPUs, or with one whose CUDA cannot be opened. */
static void test_devices_command(void **state) {
    (void)state;
    expect("VDPP_CUDA_MODULE=./nowhere.so $V devices", 0, "cpu:0 ", "no GPU: ");
    expect("VDPP_CUDA_MODULE=./nowhere.so $V devices --format json", 0, "\"kind\": \"cpu\"", "no GPU: ");
    expect("VDPP_CUDA_MODULE=./nowhere.so $V devices --device cuda", 69, "", "nowhere.so");
    expect("$V devices --device cpu", 0, "Virtual devices run on this processor's", "");
    expect("$V devices --format xml", 64, "", "give one of text|json");
    expect("$V devices --gpus 2", 64, "", "unknown option '--gpus'");
}

static void test_tune_command(void **state) {
    (void)state;
    expect("$V tune --device cpu", 69, "", "nothing to tune on cpu devices");
    expect("VDPP_CUDA_MODULE=./nowhere.so $V tune --device cuda", 69, "", "nowhere.so");
    expect("$V tune --gpus none", 64, "", "--gpus");
}

static void test_doctor_command(void **state) {
    static const char *const lines[] = {"encoders", "model     the sample model", "output", "memory"};
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        expect("$V doctor --device cpu", 0, lines[i], "");
    expect("VDPP_CUDA_MODULE=./nowhere.so $V doctor || grep -q 0x10de /sys/bus/pci/devices/*/vendor", 0,
           "GPU ", NULL);
    expect("VDPP_CUDA_MODULE=./nowhere.so $V doctor --device cuda", 69, "fail  GPU", "1 of these checks");
    expect("HF_HUB_CACHE=$PWD $V doctor --device cpu -m some-org/some-model", 66, "fail  model",
           "1 of these checks failed");
    expect("$V doctor --device cpu --output-dir not/there/yet", 0, "for 'not/there/yet'", "");
    expect("$V doctor --steps 3", 64, "", "unknown option '--steps'");
    expect("test ! -e not", 0, "", "");
}

static void test_job_files(void **state) {
    (void)state;
    expect("$V --jobs nowhere.jsonl", 66, "", "job file 'nowhere.jsonl'");
    expect("$V --jobs .", 66, "", "is a folder");
    expect("mkfifo fifo; $V --jobs fifo", 66, "", "is a FIFO");
    expect("printf '{\"steps\":1}\\n\\n{\"stps\":2}\\n' >j; $V --jobs j", 65, "", "j:3: unknown key 'stps'");
    expect("printf '{\"steps\":-1}' | $V --jobs -", 65, "", "standard input:1: 'steps' is '-1'");
    expect("$V --jobs - </dev/null", 65, "", "has no jobs");
    expect("printf '{\"output\":\"x.png\"}\\n{\"output\":\"./x.png\"}' | $V --jobs -", 64, "",
           "both be written to 'x'");
    expect("printf '{\"output\":\"x.png\"}\\n{\"output\":\"y.gif\"}' | $V --jobs -", 64, "",
           "in the same formats");
    expect("printf '{}' | $V --jobs - -i a.png -i b.png", 64, "", "give one -i at most");
}

static void test_outputs_refused_before_work(void **state) {
    (void)state;
    expect("mkdir o; echo old >o/a.json; $V --format png -o o/a", 73, "",
           "'o/a.json' exists already; replace it with -y");
    expect("echo old >r.json; $V --report r.json", 73, "", "--report: 'r.json' exists already");
    expect("$V -o r.json/a.png", 73, "", "r.json");
    expect("$V --output-dir /proc/vdpp", 73, "", "/proc/vdpp");
    expect("$V -o /dev/full/a.png", 73, "", "/dev/full");
    expect("cat o/a.json r.json; ls -A o", 0, "old\nold\na.json\n", "");
}

static void test_plans(void **state) {
    (void)state;
    expect("$V plan", 0, "1 samples of 25 steps on 1 devices", "");
    expect("$V plan --gpus 7 --samples 10 --steps 28", 0, "makespan 64", "");
    expect("$V plan --gpus 7 --samples 10 --steps 28 --parallel data", 0, "makespan 56", "");
    expect("$V plan --gpus 7 --samples 10 --steps 28 --parallel wrap", 0, "makespan 40", "");
    expect("$V plan --gpus 7 --samples 10 --steps 28 --parallel wrap --format json", 0, "\"makespan\":", "");
    expect("VDPP_GPUS=7 VDPP_FORMAT=png $V plan --samples 10 --steps 28", 0, "makespan 64", "");
    expect("$V plan --split 20,5 --samples 2", 0, "2 devices", "");
    expect("$V plan --split 20,6", 64, "", "split");
    expect("$V plan --split 20,5 --gpus 3", 64, "", "2 numbers for 3 devices");
    expect("$V plan --gpus 65", 64, "", "must be from 1 to 64");
    expect("$V plan --cost step=-1", 64, "", "--cost");
    expect("$V plan --image a.png", 64, "", "unknown option '--image'");
}

static void test_output_that_cannot_be_written(void **state) {
    (void)state;
    assert_int_equal(shell("$V plan >/dev/full 2>.err"), 74);
    assert_int_equal(shell("$V plan >&- 2>.err"), 74);
    assert_int_equal(shell("$V --help >/dev/full 2>.err"), 74);
    assert_int_equal(shell("$V plan >.out 2>&-"), 0);
    assert_int_equal(shell("mkfifo pipe; sleep 9 <pipe & exec 3>pipe; kill $!; wait; $V plan >&3 2>.err"),
                     74);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_help_and_version),
        cmocka_unit_test(test_usage_errors),
        cmocka_unit_test(test_devices_and_models_that_are_not_there),
        cmocka_unit_test(test_devices_command),
        cmocka_unit_test(test_tune_command),
        cmocka_unit_test(test_doctor_command),
        cmocka_unit_test(test_job_files),
        cmocka_unit_test(test_outputs_refused_before_work),
        cmocka_unit_test(test_plans),
        cmocka_unit_test(test_output_that_cannot_be_written),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
