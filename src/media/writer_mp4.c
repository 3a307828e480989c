#include "media/ffmpeg.h"
#include "media/writers.h"

#include <libavutil/opt.h>
#include <libswscale/swscale.h>
#include <math.h>
#include <string.h>

typedef struct mp4 {
    const vd_clip *clip;
    vd_movie movie;
    struct SwsContext *convert;
    AVFrame *rgb, *yuv; /* sides even, as 4:2:0 wants them */
} mp4;

static int even(int side) {
    return side + side % 2;
}

/* x264 where FFmpeg has it, else OpenH264, else whatever makes H.264. */
static const AVCodec *find_encoder(void) {
    const AVCodec *codec = avcodec_find_encoder_by_name("libx264");
    codec = codec ? codec : avcodec_find_encoder_by_name("libopenh264");
    return codec ? codec : avcodec_find_encoder(AV_CODEC_ID_H264);
}

static void describe_video(AVCodecContext *c, const vd_clip *clip) {
    c->width = even(clip->width);
    c->height = even(clip->height);
    c->pix_fmt = AV_PIX_FMT_YUV420P;
    c->color_range = AVCOL_RANGE_MPEG;
    c->colorspace = AVCOL_SPC_BT709;
    c->color_primaries = AVCOL_PRI_BT709;
    c->color_trc = AVCOL_TRC_BT709;
    c->chroma_sample_location = AVCHROMA_LOC_LEFT;
    c->framerate = av_d2q(clip->fps, 1000000);
    c->time_base = av_inv_q(c->framerate);
    c->bit_rate = llrint(0.2 * c->width * c->height * clip->fps); /* for encoders without crf */
    c->thread_count = 1;                                          /* the same bits on every machine */
    c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER | AV_CODEC_FLAG_BITEXACT;
}

static vd_code open_encoder(mp4 *m) {
    vd_movie *movie = &m->movie;
    const AVCodec *codec = find_encoder();
    if (!codec)
        return vd_fail(movie->err, VD_ERR_UNAVAILABLE,
                       "FFmpeg's libraries here have no H.264 encoder; give --format gif or png");
    movie->encoder = avcodec_alloc_context3(codec);
    if (!movie->encoder)
        return vd_movie_check(movie, AVERROR(ENOMEM), "encoder");
    describe_video(movie->encoder, m->clip);
    if (strcmp(codec->name, "libx264") == 0) {
        movie->encoder->bit_rate = 0;
        VD_TRY(vd_movie_check(movie, av_opt_set(movie->encoder->priv_data, "crf", "18", 0), "encoder"));
    }
    return vd_movie_check(movie, avcodec_open2(movie->encoder, codec, NULL), "encoder");
}

/* Leaves room for the index in front of the pictures, so that a player can start at once: per frame its size,
 * duration, composition offset, chunk and sync entries take at most 40 bytes. */
static vd_code open_file(mp4 *m, bool overwrite) {
    const vd_clip *clip = m->clip;
    int64_t index = 4096 + 40 * (int64_t)clip->frames + (clip->comment ? (int64_t)strlen(clip->comment) : 0);
    AVDictionary *options = NULL;
    int result = av_dict_set_int(&options, "moov_size", index, 0);
    vd_code code = vd_movie_check(&m->movie, result, "muxer");
    if (code == VD_OK)
        code = vd_movie_open(&m->movie, "mp4", overwrite, clip->comment, &options);
    av_dict_free(&options);
    return code;
}

static AVFrame *make_frame(const AVCodecContext *like, int format) {
    AVFrame *frame = av_frame_alloc();
    if (!frame)
        return NULL;
    frame->format = format;
    frame->width = like->width;
    frame->height = like->height;
    if (av_frame_get_buffer(frame, 0) < 0)
        av_frame_free(&frame);
    return frame;
}

static vd_code open_conversion(mp4 *m) {
    const AVCodecContext *c = m->movie.encoder;
    m->rgb = make_frame(c, AV_PIX_FMT_RGB24);
    m->yuv = make_frame(c, AV_PIX_FMT_YUV420P);
    m->convert =
        sws_getContext(c->width, c->height, AV_PIX_FMT_RGB24, c->width, c->height, AV_PIX_FMT_YUV420P,
                       SWS_BICUBIC | SWS_ACCURATE_RND | SWS_BITEXACT | SWS_FULL_CHR_H_INP, NULL, NULL, NULL);
    if (!m->rgb || !m->yuv || !m->convert)
        return vd_movie_check(&m->movie, AVERROR(ENOMEM), "colour conversion");
    const int *bt709 = sws_getCoefficients(SWS_CS_ITU709);
    int result = sws_setColorspaceDetails(m->convert, bt709, 1, bt709, 0, 0, 1 << 16, 1 << 16);
    return vd_movie_check(&m->movie, result, "colour conversion");
}

/* Odd sides grow by one: the last column or row again. */
static void copy_rgb(const mp4 *m, int index) {
    const vd_clip *clip = m->clip;
    size_t row = 3 * (size_t)clip->width;
    const uint8_t *from = clip->rgb + (size_t)index * (size_t)clip->height * row;
    for (int y = 0; y < m->rgb->height; y++) {
        uint8_t *to = m->rgb->data[0] + (int64_t)y * m->rgb->linesize[0];
        memcpy(to, from + (size_t)(y < clip->height ? y : clip->height - 1) * row, row);
        if (m->rgb->width > clip->width)
            memcpy(to + row, to + row - 3, 3);
    }
}

static vd_code write_frame(mp4 *m, int index) {
    vd_movie *movie = &m->movie;
    copy_rgb(m, index);
    VD_TRY(
        vd_movie_check(movie, av_frame_make_writable(m->yuv), "encoder")); /* the encoder may hold the last */
    int rows = sws_scale(m->convert, (const uint8_t *const *)m->rgb->data, m->rgb->linesize, 0,
                         m->rgb->height, m->yuv->data, m->yuv->linesize);
    VD_TRY(vd_movie_check(movie, rows, "colour conversion"));
    m->yuv->pts = index;
    return vd_movie_encode(movie, m->yuv);
}

static vd_code write_all(mp4 *m, bool overwrite) {
    VD_TRY(open_encoder(m));
    VD_TRY(open_conversion(m));
    VD_TRY(open_file(m, overwrite));
    for (int i = 0; i < m->clip->frames; i++)
        VD_TRY(write_frame(m, i));
    return vd_movie_finish(&m->movie);
}

vd_code vd_movie_write_mp4(const vd_clip *clip, const char *path, bool overwrite, vd_error *err) {
    mp4 m = {.clip = clip, .movie = {.path = path, .err = err}};
    vd_ffmpeg_hush();
    vd_code code = write_all(&m, overwrite);
    vd_movie_close(&m.movie);
    sws_freeContext(m.convert);
    av_frame_free(&m.rgb);
    av_frame_free(&m.yuv);
    vd_ffmpeg_unhush();
    return code;
}
