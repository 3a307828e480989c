/* Clips written, and read back by others: libavformat, stb_image through vd_image_load, and by hand. */
#include "bytes.h"

#include "media/writer.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef VD_HAVE_FFMPEG
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#endif

enum { FRAMES = 6, WIDTH = 35, HEIGHT = 21, PIXELS = FRAMES * WIDTH * HEIGHT, LATENTS = 3 * 4 * 2 * 5 };

static const char comment[] = "{\"seed\": 42, \"image\": \"\xc3\xa4\"}";

typedef struct fixture {
    char folder[32];
    uint8_t rgb[PIXELS * 3];
    float latents[LATENTS];
    vd_clip clip;
} fixture;

static int setup(void **state) {
    fixture *f = calloc(1, sizeof *f);
    memcpy(f->folder, "/tmp/vdpp-test-XXXXXX", 22);
    if (!mkdtemp(f->folder))
        return -1;
    for (int i = 0; i < PIXELS; i++) {
        int x = i % WIDTH, y = i / WIDTH % HEIGHT, frame = i / WIDTH / HEIGHT;
        f->rgb[3 * i] = (uint8_t)(x * 7);
        f->rgb[3 * i + 1] = (uint8_t)(y * 12);
        f->rgb[3 * i + 2] = (uint8_t)(frame * 50);
    }
    for (int i = 0; i < LATENTS; i++)
        f->latents[i] = (float)i / 3 - 7;
    f->clip = (vd_clip){FRAMES, WIDTH, HEIGHT, 7, f->rgb, 3, 4, 2, 5, f->latents, comment};
    *state = f;
    return 0;
}

static void remove_all(const char *path) {
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        char inner[600];
        snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name);
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            remove_all(inner);
    }
    if (dir)
        closedir(dir);
    remove(path);
}

static int teardown(void **state) {
    fixture *f = *state;
    remove_all(f->folder);
    free(f);
    return 0;
}

static char *path_in(const fixture *f, const char *name, char path[300]) {
    snprintf(path, 300, "%s/%s", f->folder, name);
    return path;
}

static int count_entries(const char *path) {
    int count = -2;
    DIR *dir = opendir(path);
    assert_non_null(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static vd_code write_clip(const vd_clip *clip, const char *format, const char *path, bool overwrite,
                          vd_error *err) {
    const vd_format *f = vd_format_find(format);
    assert_non_null(f);
    return f->write(clip, path, overwrite, err);
}

static void expect_written(const vd_clip *clip, const char *format, const char *path, bool overwrite) {
    vd_error err;
    if (write_clip(clip, format, path, overwrite, &err) != VD_OK)
        fail_msg("%s", err.message);
}

/* What this build offers, in the order of the list. */
static const char *const formats[] = {
#ifdef VD_HAVE_FFMPEG
    "mp4", "gif",
#endif
    "png", "latents"};
enum { FORMATS = sizeof formats / sizeof *formats };

static void test_table(void **state) {
    (void)state;
    char list[64] = "";
    for (int i = 0; i < FORMATS; i++) {
        const vd_format *f = vd_format_find(formats[i]);
        assert_non_null(f);
        assert_string_equal(f->name, formats[i]);
        assert_int_equal(f->needs_frames, strcmp(f->name, "latents") != 0);
        strcat(strcat(list, formats[i]), ", ");
    }
    strcat(list, "null");
    assert_string_equal(vd_format_list(), list);
    assert_null(vd_format_find("avi"));
    assert_null(vd_format_find(""));
    assert_string_equal(vd_format_find("latents")->extension, ".safetensors");
    assert_string_equal(vd_format_find("png")->extension, "");
}

static void test_null(void **state) {
    fixture *f = *state;
    char path[300];
    expect_written(&f->clip, "null", path_in(f, "nothing", path), false);
    assert_int_equal(count_entries(f->folder), 0);
}

static void test_png(void **state) {
    fixture *f = *state;
    char path[300], frame[340];
    expect_written(&f->clip, "png", path_in(f, "a/b/clip", path), false);
    assert_int_equal(count_entries(path), FRAMES);
    for (int i = 0; i < FRAMES; i++) {
        snprintf(frame, sizeof frame, "%s/frame-%03d.png", path, i);
        vd_image image;
        vd_error err;
        assert_int_equal(vd_image_load(frame, &image, &err), VD_OK);
        assert_int_equal(image.width, WIDTH);
        assert_int_equal(image.height, HEIGHT);
        assert_memory_equal(image.rgb, f->rgb + i * WIDTH * HEIGHT * 3, WIDTH * HEIGHT * 3);
        vd_image_free(&image);
    }
    assert_int_equal(count_entries(path_in(f, "a/b", path)), 1);
}

/* -y replaces a folder of frames, all of it, and no other folder. */
static void test_png_replaces_only_frames(void **state) {
    fixture *f = *state;
    char path[300], inner[340];
    expect_written(&f->clip, "png", path_in(f, "clip", path), false);
    vd_clip shorter = f->clip;
    shorter.frames = 2;
    expect_written(&shorter, "png", path, true);
    assert_int_equal(count_entries(path), 2);
    assert_int_equal(count_entries(f->folder), 1);
    snprintf(inner, sizeof inner, "%s/notes.txt", path);
    FILE *notes = fopen(inner, "w");
    fclose(notes);
    vd_error err;
    assert_int_equal(write_clip(&f->clip, "png", path, true, &err), VD_ERR_CANNOT_CREATE);
    assert_non_null(strstr(err.message, "not replaced"));
    assert_int_equal(count_entries(path), 3);
    assert_int_equal(write_clip(&f->clip, "png", inner, true, &err), VD_ERR_CANNOT_CREATE);
    assert_int_equal(access(inner, F_OK), 0);
    assert_int_equal(count_entries(f->folder), 1);
}

static void test_latents(void **state) {
    fixture *f = *state;
    char path[300];
    vd_clip only = f->clip;
    only.frames = 0;
    only.rgb = NULL;
    expect_written(&only, "latents", path_in(f, "clip.safetensors", path), false);
    bytes b = read_whole(path);
    static const char header[] =
        "{\"latents\":{\"dtype\":\"F32\",\"shape\":[1,3,4,2,5],\"data_offsets\":[0,480]}} ";
    assert_int_equal(b.count, 8 + 72 + 480);
    assert_memory_equal(b.at, "\x48\0\0\0\0\0\0\0", 8);
    assert_memory_equal(b.at + 8, header, sizeof header - 1);
    assert_memory_equal(b.at + 80, f->latents, sizeof f->latents);
    drop(&b);
}

/* Bytes of a file, or of all files of a folder of frames. */
static bytes read_output(const char *path) {
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    if (!S_ISDIR(info.st_mode))
        return read_whole(path);
    bytes all = {0};
    for (int i = 0; i < FRAMES; i++) {
        char frame[340];
        snprintf(frame, sizeof frame, "%s/frame-%03d.png", path, i);
        bytes b = read_whole(frame);
        put(&all, b.at, b.count);
        drop(&b);
    }
    return all;
}

static void test_same_bits_twice(void **state) {
    fixture *f = *state;
    char path[300];
    for (int i = 0; i < FORMATS; i++) {
        bytes b[2];
        for (int k = 0; k < 2; k++) {
            expect_written(&f->clip, formats[i], path_in(f, formats[i], path), k == 1);
            b[k] = read_output(path);
        }
        assert_int_equal(b[0].count, b[1].count);
        assert_memory_equal(b[0].at, b[1].at, b[0].count);
        drop(&b[0]), drop(&b[1]);
    }
    assert_int_equal(count_entries(f->folder), FORMATS);
}

static void test_nothing_is_overwritten(void **state) {
    fixture *f = *state;
    char path[300];
    for (int i = 0; i < FORMATS; i++) {
        FILE *file = fopen(path_in(f, formats[i], path), "w");
        fputs("mine", file);
        fclose(file);
        vd_error err;
        assert_int_equal(write_clip(&f->clip, formats[i], path, false, &err), VD_ERR_CANNOT_CREATE);
        assert_non_null(strstr(err.message, "-y"));
        bytes b = read_whole(path);
        assert_int_equal(b.count, 4);
        drop(&b);
    }
    assert_int_equal(count_entries(f->folder), FORMATS);
}

/* A folder that cannot be: a file stands in its place. */
static void test_impossible_places(void **state) {
    fixture *f = *state;
    char path[300];
    fclose(fopen(path_in(f, "file", path), "w"));
    for (int i = 0; i < FORMATS; i++) {
        vd_error err;
        assert_int_equal(write_clip(&f->clip, formats[i], path_in(f, "file/clip", path), true, &err),
                         VD_ERR_CANNOT_CREATE);
        assert_non_null(strstr(err.message, path_in(f, "file", path)));
    }
    assert_int_equal(count_entries(f->folder), 1);
}

/* As on a full disk, from the first byte on and in the middle. */
static void test_failing_writes_leave_nothing(void **state) {
    fixture *f = *state;
    struct rlimit unlimited;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &unlimited), 0);
    signal(SIGXFSZ, SIG_IGN);
    static const rlim_t limits[] = {0, 40, 70};
    vd_code codes[FORMATS * 3];
    vd_error errors[FORMATS * 3];
    for (int i = 0; i < FORMATS * 3; i++) {
        char path[300];
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){limits[i % 3], unlimited.rlim_max});
        codes[i] = write_clip(&f->clip, formats[i / 3], path_in(f, "clip", path), false, &errors[i]);
        setrlimit(RLIMIT_FSIZE, &unlimited);
    }
    for (int i = 0; i < FORMATS * 3; i++) {
        assert_int_equal(codes[i], VD_ERR_IO);
        assert_non_null(strstr(errors[i].message, "File too large"));
    }
    assert_int_equal(count_entries(f->folder), 0);
}

#ifdef VD_HAVE_FFMPEG

typedef struct movie {
    AVFormatContext *format;
    AVCodecContext *decoder;
    int frames;
    int64_t end;          /* of the last frame, in units of the stream */
    uint8_t corner[2][3]; /* Y, Cb, Cr of the first frame, at the top left and the bottom right */
} movie;

static void take_frame(movie *m, const AVFrame *frame) {
    if (m->frames++ > 0 || frame->format != AV_PIX_FMT_YUV420P)
        return;
    for (int i = 0; i < 2; i++)
        for (int plane = 0; plane < 3; plane++) {
            int shift = plane > 0, x = i * ((frame->width >> shift) - 1),
                y = i * ((frame->height >> shift) - 1);
            m->corner[i][plane] = frame->data[plane][y * frame->linesize[plane] + x];
        }
}

static movie read_movie(const char *path) {
    movie m = {0};
    assert_int_equal(avformat_open_input(&m.format, path, NULL, NULL), 0);
    assert_true(avformat_find_stream_info(m.format, NULL) >= 0);
    assert_int_equal(m.format->nb_streams, 1);
    const AVCodecParameters *parameters = m.format->streams[0]->codecpar;
    m.decoder = avcodec_alloc_context3(avcodec_find_decoder(parameters->codec_id));
    assert_true(avcodec_parameters_to_context(m.decoder, parameters) >= 0);
    m.decoder->thread_count = 1;
    assert_int_equal(avcodec_open2(m.decoder, m.decoder->codec, NULL), 0);
    AVPacket *packet = av_packet_alloc();
    AVFrame *frame = av_frame_alloc();
    for (bool more = true; more;) {
        more = av_read_frame(m.format, packet) == 0;
        if (more && packet->pts + packet->duration > m.end)
            m.end = packet->pts + packet->duration;
        assert_int_equal(avcodec_send_packet(m.decoder, more ? packet : NULL), 0);
        while (avcodec_receive_frame(m.decoder, frame) == 0)
            take_frame(&m, frame);
        av_packet_unref(packet);
    }
    av_packet_free(&packet);
    av_frame_free(&frame);
    return m;
}

static void close_movie(movie *m) {
    avcodec_free_context(&m->decoder);
    avformat_close_input(&m->format);
}

static void test_mp4(void **state) {
    fixture *f = *state;
    char path[300];
    expect_written(&f->clip, "mp4", path_in(f, "clip.mp4", path), false);
    movie m = read_movie(path);
    const AVCodecParameters *p = m.format->streams[0]->codecpar;
    assert_int_equal(p->codec_id, AV_CODEC_ID_H264);
    assert_int_equal(p->format, AV_PIX_FMT_YUV420P);
    assert_int_equal(p->width, WIDTH + 1);
    assert_int_equal(p->height, HEIGHT + 1);
    assert_int_equal(p->color_range, AVCOL_RANGE_MPEG);
    assert_int_equal(p->color_space, AVCOL_SPC_BT709);
    assert_int_equal(p->color_primaries, AVCOL_PRI_BT709);
    assert_int_equal(p->color_trc, AVCOL_TRC_BT709);
    assert_int_equal(m.frames, FRAMES);
    AVDictionaryEntry *entry = av_dict_get(m.format->metadata, "comment", NULL, 0);
    assert_non_null(entry);
    assert_string_equal(entry->value, comment);
    close_movie(&m);
}

/* BT.709 in studio range (ITU-R BT.709-6, 3.2 to 3.5): one colour of known Y, Cb and Cr in two corners. */
static void test_mp4_colours(void **state) {
    fixture *f = *state;
    static const struct {
        uint8_t rgb[3], yuv[3];
    } known[] = {{{0, 0, 0}, {16, 128, 128}},   {{255, 255, 255}, {235, 128, 128}},
                 {{255, 0, 0}, {63, 102, 240}}, {{0, 255, 0}, {173, 42, 26}},
                 {{0, 0, 255}, {32, 240, 118}}, {{128, 64, 32}, {81, 107, 157}}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        char path[300];
        for (int k = 0; k < PIXELS * 3; k++)
            f->rgb[k] = known[i].rgb[k % 3];
        expect_written(&f->clip, "mp4", path_in(f, "clip.mp4", path), true);
        movie m = read_movie(path);
        for (int corner = 0; corner < 2; corner++)
            for (int plane = 0; plane < 3; plane++)
                assert_in_range(m.corner[corner][plane] - known[i].yuv[plane] + 2, 0, 4);
        close_movie(&m);
    }
}

static void test_mp4_starts_with_its_index(void **state) {
    fixture *f = *state;
    char path[300];
    expect_written(&f->clip, "mp4", path_in(f, "clip.mp4", path), false);
    bytes b = read_whole(path);
    char *index = memmem(b.at, b.count, "moov", 4), *pictures = memmem(b.at, b.count, "mdat", 4);
    assert_non_null(index);
    assert_non_null(pictures);
    assert_true(index < pictures);
    drop(&b);
}

static void test_frame_rates(void **state) {
    fixture *f = *state;
    static const struct {
        double fps;
        AVRational exact;
    } rates[] = {
        {7, {7, 1}},    {1, {1, 1}}, {0.5, {1, 2}}, {29.97, {2997, 100}}, {30000.0 / 1001, {30000, 1001}},
        {120, {120, 1}}};
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        char path[300];
        f->clip.fps = rates[i].fps;
        expect_written(&f->clip, "mp4", path_in(f, "clip.mp4", path), true);
        movie m = read_movie(path);
        const AVStream *stream = m.format->streams[0];
        assert_int_equal(av_cmp_q(stream->avg_frame_rate, rates[i].exact), 0);
        AVRational length = {FRAMES * rates[i].exact.den, rates[i].exact.num};
        assert_int_equal(av_compare_ts(m.end, stream->time_base, 1, length), 0);
        close_movie(&m);
    }
}

static void test_movie_shapes(void **state) {
    fixture *f = *state;
    static const int shapes[][3] = {{1, 1, 1}, {1, 2, 2}, {2, 1, 8}, {1, 35, 21}, {240, 4, 4}, {3, 64, 2}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int k = 0; k < 2; k++) {
            char path[300];
            f->clip.frames = shapes[i][0];
            f->clip.width = shapes[i][1];
            f->clip.height = shapes[i][2];
            f->clip.comment = NULL;
            expect_written(&f->clip, formats[k], path_in(f, "clip", path), true);
            movie m = read_movie(path);
            assert_int_equal(m.frames, shapes[i][0]);
            close_movie(&m);
        }
}

static void test_gif(void **state) {
    fixture *f = *state;
    char path[300];
    expect_written(&f->clip, "gif", path_in(f, "clip.gif", path), false);
    movie m = read_movie(path);
    assert_int_equal(m.format->streams[0]->codecpar->codec_id, AV_CODEC_ID_GIF);
    assert_int_equal(m.format->streams[0]->codecpar->width, WIDTH);
    assert_int_equal(m.format->streams[0]->codecpar->height, HEIGHT);
    assert_int_equal(m.frames, FRAMES);
    assert_in_range(m.end, 85, 86); /* 6 / 7 s in hundredths */
    close_movie(&m);
    bytes b = read_whole(path);
    assert_non_null(memmem(b.at, b.count, "NETSCAPE2.0\3\1\0\0", 15)); /* loops for ever */
    drop(&b);
}

#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test_setup_teardown(test_null, setup, teardown),
        cmocka_unit_test_setup_teardown(test_png, setup, teardown),
        cmocka_unit_test_setup_teardown(test_png_replaces_only_frames, setup, teardown),
        cmocka_unit_test_setup_teardown(test_latents, setup, teardown),
        cmocka_unit_test_setup_teardown(test_same_bits_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_is_overwritten, setup, teardown),
        cmocka_unit_test_setup_teardown(test_impossible_places, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failing_writes_leave_nothing, setup, teardown),
#ifdef VD_HAVE_FFMPEG
        cmocka_unit_test_setup_teardown(test_mp4, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mp4_colours, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mp4_starts_with_its_index, setup, teardown),
        cmocka_unit_test_setup_teardown(test_frame_rates, setup, teardown),
        cmocka_unit_test_setup_teardown(test_movie_shapes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gif, setup, teardown),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
