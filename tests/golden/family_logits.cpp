// Logits of llama.cpp for tiny models, as JSON lines; see NOTES.md.
//
//     ARMLET_WRITE_FAMILIES=DIR cargo test --test it families::logits_are_those_of_llama_cpp
//     g++ -O1 -o family_logits family_logits.cpp -I$LLAMA/include -I$LLAMA/ggml/include -L... -lllama -lggml ...
//     ./family_logits DIR/*.gguf > family_logits.jsonl
//
// A file is named CONTEXT-NAME.gguf. The text is the ids 0, 29, 58, … modulo the vocabulary. Keys and values are F32, without
// flash attention, on one thread.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "llama.h"

static const int TOKENS = 40;
static const int POSITIONS[] = {0, 5, 17, 39};

static void quiet(ggml_log_level level, const char * text, void *) {
    if (level >= GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

static int run(const char * path) {
    const char * file = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    const char * name = strchr(file, '-') + 1;
    llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers = 0;
    model_params.use_extra_bufts = false;
    llama_model * model = llama_model_load_from_file(path, model_params);
    if (!model) return 1;
    llama_context_params params = llama_context_default_params();
    params.n_ctx = atoi(file);
    params.n_batch = params.n_ubatch = TOKENS;
    params.n_threads = params.n_threads_batch = 1;
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.swa_full = true;
    llama_context * context = llama_init_from_model(model, params);
    if (!context) return 1;
    int vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    llama_batch batch = llama_batch_init(TOKENS, 0, 1);
    batch.n_tokens = TOKENS;
    for (int i = 0; i < TOKENS; i++) {
        batch.token[i] = 29 * i % vocab;
        batch.pos[i] = i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = 1;
    }
    if (llama_decode(context, batch)) return 1;
    printf("{\"name\": \"%.*s\", \"context\": %d, \"logits\": [", (int) strlen(name) - 5, name, atoi(file));
    for (size_t p = 0; p < sizeof POSITIONS / sizeof *POSITIONS; p++) {
        const float * logits = llama_get_logits_ith(context, POSITIONS[p]);
        printf("%s{\"position\": %d, \"values\": [", p ? ", " : "", POSITIONS[p]);
        for (int i = 0; i < vocab; i++) printf("%s%.7g", i ? ", " : "", logits[i]);
        printf("]}");
    }
    printf("]}\n");
    llama_batch_free(batch);
    llama_free(context);
    llama_model_free(model);
    return 0;
}

int main(int argc, char ** argv) {
    llama_log_set(quiet, nullptr);
    llama_backend_init();
    int failed = 0;
    for (int i = 1; i < argc; i++) {
        if (run(argv[i])) {
            fprintf(stderr, "%s failed\n", argv[i]);
            failed++;
        }
    }
    return failed;
}
