#include "media/ffmpeg.h"
#include "media/writers.h"

#include <libavfilter/avfilter.h>
#include <libavfilter/buffersink.h>
#include <libavfilter/buffersrc.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct gif {
    const vd_clip *clip;
    vd_movie movie;
    AVFilterGraph *graph;
    AVFilterContext *source, *sink;
    AVFrame *frame;
} gif;

/* GIF counts time in hundredths of a second. Rounding the moments, not the delays, keeps the clip in time. */
static const AVRational time_base = {1, 100};

static int64_t moment(const gif *g, int index) {
    return llrint(index * 100.0 / g->clip->fps);
}

/* One palette for the clip, made of all its frames. */
static vd_code open_graph(gif *g) {
    vd_movie *movie = &g->movie;
    char description[256];
    snprintf(description, sizeof description,
             "buffer@in=video_size=%dx%d:pix_fmt=rgb24:time_base=%d/%d:pixel_aspect=1/1,split[a][b];"
             "[a]palettegen=reserve_transparent=0[p];[b][p]paletteuse,buffersink@out",
             g->clip->width, g->clip->height, time_base.num, time_base.den);
    g->graph = avfilter_graph_alloc();
    if (!g->graph)
        return vd_movie_check(movie, AVERROR(ENOMEM), "filters");
    g->graph->nb_threads = 1;
    AVFilterInOut *inputs = NULL, *outputs = NULL;
    int result = avfilter_graph_parse2(g->graph, description, &inputs, &outputs);
    avfilter_inout_free(&inputs);
    avfilter_inout_free(&outputs);
    VD_TRY(vd_movie_check(movie, result, "filters"));
    g->source = avfilter_graph_get_filter(g->graph, "buffer@in");
    g->sink = avfilter_graph_get_filter(g->graph, "buffersink@out");
    return vd_movie_check(movie, avfilter_graph_config(g->graph, NULL), "filters");
}

static vd_code open_encoder(gif *g) {
    vd_movie *movie = &g->movie;
    const AVCodec *codec = avcodec_find_encoder(AV_CODEC_ID_GIF);
    movie->encoder = codec ? avcodec_alloc_context3(codec) : NULL;
    if (!movie->encoder)
        return vd_fail(movie->err, VD_ERR_UNAVAILABLE,
                       "FFmpeg's libraries here cannot write GIF; give --format png");
    AVCodecContext *c = movie->encoder;
    c->width = g->clip->width;
    c->height = g->clip->height;
    c->pix_fmt = AV_PIX_FMT_PAL8;
    c->time_base = time_base;
    c->thread_count = 1;
    c->flags |= AV_CODEC_FLAG_BITEXACT;
    return vd_movie_check(movie, avcodec_open2(c, codec, NULL), "encoder");
}

static vd_code feed_frame(gif *g, int index) {
    vd_movie *movie = &g->movie;
    const vd_clip *clip = g->clip;
    AVFrame *f = g->frame;
    size_t row = 3 * (size_t)clip->width;
    f->format = AV_PIX_FMT_RGB24;
    f->width = clip->width;
    f->height = clip->height;
    f->pts = moment(g, index);
    f->sample_aspect_ratio = (AVRational){1, 1};
    VD_TRY(vd_movie_check(movie, av_frame_get_buffer(f, 0), "filters"));
    const uint8_t *from = clip->rgb + (size_t)index * (size_t)clip->height * row;
    for (int y = 0; y < clip->height; y++)
        memcpy(f->data[0] + (int64_t)y * f->linesize[0], from + (size_t)y * row, row);
    return vd_movie_check(movie, av_buffersrc_add_frame(g->source, f), "filters"); /* takes the buffers */
}

static vd_code encode_frames(gif *g) {
    for (int index = 0;; index++) {
        int result = av_buffersink_get_frame(g->sink, g->frame);
        if (result == AVERROR_EOF)
            return VD_OK;
        VD_TRY(vd_movie_check(&g->movie, result, "filters"));
        g->frame->pict_type = AV_PICTURE_TYPE_NONE;
        VD_TRY(vd_movie_encode(&g->movie, g->frame));
        av_frame_unref(g->frame);
    }
}

static vd_code write_all(gif *g, bool overwrite) {
    g->frame = av_frame_alloc();
    if (!g->frame)
        return vd_movie_check(&g->movie, AVERROR(ENOMEM), "filters");
    VD_TRY(open_encoder(g));
    VD_TRY(open_graph(g));
    VD_TRY(vd_movie_open(&g->movie, "gif", overwrite, NULL,
                         NULL)); /* the muxer loops for ever unless told not to */
    for (int i = 0; i < g->clip->frames; i++)
        VD_TRY(feed_frame(g, i));
    int64_t end = moment(g, g->clip->frames);
    VD_TRY(vd_movie_check(&g->movie, av_buffersrc_close(g->source, end, 0), "filters"));
    VD_TRY(encode_frames(g));
    return vd_movie_finish(&g->movie);
}

vd_code vd_movie_write_gif(const vd_clip *clip, const char *path, bool overwrite, vd_error *err) {
    gif g = {.clip = clip, .movie = {.path = path, .err = err}};
    vd_ffmpeg_hush();
    vd_code code = write_all(&g, overwrite);
    vd_movie_close(&g.movie);
    avfilter_graph_free(&g.graph);
    av_frame_free(&g.frame);
    vd_ffmpeg_unhush();
    return code;
}
