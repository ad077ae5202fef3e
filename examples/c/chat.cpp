// A conversation with a model, in C++11, on several cores.
//
//     chat_cpp MODEL [-w WORKERS] [-p PROMPT] [-s SYSTEM] [-n TOKENS] [-c CONTEXT] [-b BACKEND] [-i]
//
// The library starts no threads: it asks for them, and `Workers` lends some. The answer is the same to the bit for any
// number of them.

#include <armlet.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

/// Threads that stay: one for each worker but the first, which is whoever calls.
class Workers {
public:
    explicit Workers(std::uint32_t count)
    {
        if (count > ARMLET_MAX_WORKERS)
            throw std::invalid_argument("too many workers");
        try {
            for (std::uint32_t core = 1; core < count; ++core)
                threads_.emplace_back(&Workers::serve, this, core);
        } catch (...) {
            stop();
            throw;
        }
    }

    ~Workers() { stop(); }

    Workers(const Workers&) = delete;
    Workers& operator=(const Workers&) = delete;

    std::uint32_t count() const { return static_cast<std::uint32_t>(threads_.size()) + 1; }

    /// Calls `work(arg, core)` for each core at once, and returns when all calls have. The mutex is what makes the
    /// bytes that one of them wrote visible to all.
    void run(armlet_work work, void* arg)
    {
        start(work, arg);
        work(arg, 0);
        std::unique_lock<std::mutex> lock(mutex_);
        done_.wait(lock, [this] { return busy_ == 0; });
    }

private:
    void start(armlet_work work, void* arg)
    {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            work_ = work;
            arg_ = arg;
            busy_ = threads_.size();
            ++round_;
        }
        start_.notify_all();
    }

    /// No work is the sign to end.
    void stop()
    {
        start(nullptr, nullptr);
        for (std::thread& thread : threads_)
            thread.join();
    }

    void serve(std::uint32_t core)
    {
        for (std::uint64_t seen = 0;;) {
            std::unique_lock<std::mutex> lock(mutex_);
            start_.wait(lock, [&] { return round_ != seen; });
            seen = round_;
            const armlet_work work = work_;
            void* const arg = arg_;
            lock.unlock();
            if (!work)
                return;
            work(arg, core);
            lock.lock();
            if (--busy_ == 0)
                done_.notify_one();
        }
    }

    std::mutex mutex_;
    std::condition_variable start_, done_;
    armlet_work work_ = nullptr;
    void* arg_ = nullptr;
    std::size_t busy_ = 0;
    std::uint64_t round_ = 0;
    // Last, so that all above is there when the first thread starts.
    std::vector<std::thread> threads_;
};

/// What a function of the library said.
struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// What a conversation is made with.
struct Options {
    std::uint32_t workers = 1, context = 0, backend = ARMLET_BEST;
};

/// What the callbacks get as `user`.
struct Caller {
    explicit Caller(std::uint32_t count) : workers(count) {}

    Workers workers;
    /// Why the last call failed, in more words than its status has.
    std::string why;
};

// No exception may pass through the library.
extern "C" {

void keep_why(void* user, const char* text, std::size_t len) noexcept
{
    try {
        static_cast<Caller*>(user)->why.assign(text, len);
    } catch (const std::bad_alloc&) {
        // The status says enough.
    }
}

void parallel_for(void* user, std::uint32_t, armlet_work work, void* arg) noexcept
{
    static_cast<Caller*>(user)->workers.run(work, arg);
}

} // extern "C"

/// A conversation, with the memory that it takes. The model must outlive it.
class Chat {
public:
    Chat(const std::vector<char>& model, const Options& options) : caller_(options.workers)
    {
        armlet_config config = ARMLET_CONFIG_INIT;
        config.context = options.context;
        config.backend = options.backend;
        config.workers = caller_.workers.count();
        config.user = &caller_;
        config.log = keep_why;
        config.parallel_for = parallel_for;

        armlet_requirements needs = ARMLET_REQUIREMENTS_INIT;
        check(armlet_plan(model.data(), model.size(), &config, &needs));
        // C++11 has no aligned new: some bytes more, and the first of them that is aligned.
        auto bytes = static_cast<std::size_t>(needs.arena_bytes);
        std::size_t room = bytes + needs.arena_align;
        arena_.reset(new char[room]);
        void* start = arena_.get();
        if (!std::align(needs.arena_align, bytes, start, room))
            throw std::bad_alloc();
        check(armlet_init(start, room, model.data(), model.size(), &config, &ctx_));
    }

    // The library keeps the address of `caller_`.
    Chat(const Chat&) = delete;
    Chat& operator=(const Chat&) = delete;

    /// Reads instructions.
    void instruct(const std::string& text) { read(turn(ARMLET_SYSTEM, text, 0)); }

    /// Asks, and gives each token of the answer to `show`, which returns whether there should be another one.
    template <typename Show>
    void ask(const std::string& text, Show show)
    {
        read(turn(ARMLET_USER, text, ARMLET_OPEN_ANSWER | (answered_ ? ARMLET_CLOSE_ANSWER : 0U)));
        answered_ = true;
        std::uint32_t token;
        while (check(armlet_step(ctx_, &token)) == ARMLET_OK && show(token)) {
        }
    }

    /// The whole characters that `token` adds to a text; what is left of one after the last, without it.
    std::string piece(std::uint32_t token = ARMLET_NO_TOKEN)
    {
        return filled<std::string>(64, [&](char* text, std::size_t room, std::size_t* len) {
            return armlet_piece(ctx_, token, text, room, len);
        });
    }

    armlet_info info()
    {
        armlet_info info = ARMLET_INFO_INIT;
        check(armlet_get_info(ctx_, &info));
        return info;
    }

private:
    armlet_status check(armlet_status status)
    {
        if (status >= ARMLET_OK)
            return status;
        const std::string what = armlet_status_str(status);
        std::string why;
        why.swap(caller_.why);
        throw Error(why.empty() || why == what ? what : what + " (" + why + ")");
    }

    /// A string or a vector that a function fills, which is called again if it says that it needs more room.
    template <typename List, typename Fill>
    List filled(std::size_t room, Fill fill)
    {
        List list(room, {});
        std::size_t len = 0;
        armlet_status status = fill(&list[0], list.size(), &len);
        if (status == ARMLET_ERR_BUFFER) {
            list.resize(len);
            status = fill(&list[0], list.size(), &len);
        }
        check(status);
        list.resize(len);
        return list;
    }

    std::vector<std::uint32_t> turn(std::uint32_t role, const std::string& text, std::uint32_t flags)
    {
        return filled<std::vector<std::uint32_t>>(256, [&](std::uint32_t* tokens, std::size_t room, std::size_t* n) {
            return armlet_chat_turn(ctx_, role, text.data(), text.size(), flags, tokens, room, n);
        });
    }

    void read(const std::vector<std::uint32_t>& tokens) { check(armlet_prefill(ctx_, tokens.data(), tokens.size())); }

    Caller caller_;
    std::unique_ptr<char[]> arena_;
    armlet_ctx* ctx_ = nullptr;
    bool answered_ = false;
};

/// A whole file. It could also be mapped, or be in flash: the library reads it in place.
std::vector<char> read_file(const std::string& path)
{
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    const std::streamoff size = file.tellg();
    if (size < 0)
        throw std::runtime_error(path + ": cannot be read");
    std::vector<char> bytes(static_cast<std::size_t>(size));
    file.seekg(0);
    if (!file.read(bytes.data(), static_cast<std::streamsize>(bytes.size())))
        throw std::runtime_error(path + ": cannot be read");
    return bytes;
}

std::uint32_t number(const char* text)
{
    const unsigned long value = std::stoul(text);
    if (value > UINT32_MAX)
        throw std::out_of_range("a number is too large");
    return static_cast<std::uint32_t>(value);
}

std::uint32_t backend(const std::string& name)
{
    static const char* const names[] = {"best", "scalar", "neon", "dotprod", "i8mm", "avx2", "avx512"};
    for (std::uint32_t i = 0; i < sizeof names / sizeof *names; ++i)
        if (name == names[i])
            return i;
    throw std::invalid_argument("no such backend: " + name);
}

void run(int argc, char** argv)
{
    Options options;
    std::string prompt, system;
    std::uint32_t most = 512;
    bool ids = false;
    if (argc < 2)
        throw std::invalid_argument("which model?");
    optind = 2;
    for (int option; (option = getopt(argc, argv, "w:p:s:n:c:b:i")) != -1;) {
        switch (option) {
        case 'w': options.workers = number(optarg); break;
        case 'p': prompt = optarg; break;
        case 's': system = optarg; break;
        case 'n': most = number(optarg); break;
        case 'c': options.context = number(optarg); break;
        case 'b': options.backend = backend(optarg); break;
        case 'i': ids = true; break;
        default: throw std::invalid_argument("no such option");
        }
    }
    if (optind != argc)
        throw std::invalid_argument(std::string("what is ") + argv[optind] + "?");

    const std::vector<char> model = read_file(argv[1]);
    Chat chat(model, options);
    if (!system.empty())
        chat.instruct(system);

    const auto ask = [&](const std::string& text) {
        std::uint32_t shown = 0;
        chat.ask(text, [&](std::uint32_t token) {
            if (ids)
                std::cout << token << ' ';
            else
                std::cout << chat.piece(token) << std::flush;
            return ++shown < most;
        });
        std::cout << chat.piece() << std::endl;
    };
    if (!prompt.empty())
        ask(prompt);
    else
        for (std::string line; std::getline(std::cin, line);)
            if (!line.empty())
                ask(line);

    const armlet_info info = chat.info();
    for (std::uint32_t core = 0; options.workers > 1 && core < options.workers; ++core)
        std::cerr << "worker " << core << ": " << info.tiles[core] << " tiles\n";
}

} // namespace

int main(int argc, char** argv)
{
    try {
        run(argc, argv);
    } catch (const std::exception& e) {
        std::cerr << "chat_cpp: " << e.what() << '\n';
        return EXIT_FAILURE;
    }
}
