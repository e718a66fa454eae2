/* probe GROUP: runs the group's cases. Environment: PROBE_HERE, PROBE_THERE, PROBE_PEER (see tools.c). */
#include "probe.h"

const char *here, *there;
const char *current_group, *current_case;

static const struct {
    const char *name;
    const struct test *tests;
} groups[] = {
    {"open", open_tests},       {"connect", connect_tests}, {"ends", ends_tests},
    {"data", data_tests},       {"control", control_tests}, {"options", options_tests},
    {"ready", ready_tests},     {"epoll", epoll_tests},     {"wait", wait_tests},
    {"process", process_tests}, {"kernel", kernel_tests},   {"urgent", urgent_tests},
};

/* A case that hangs ends by SIGALRM; whatever it started goes with it. */
static void run(const struct test *test) {
    current_case = test->name;
    pid_t pid = fork();
    if (pid == 0) {
        setpgid(0, 0);
        signal(SIGPIPE, SIG_IGN);
        alarm(20);
        test->run();
        exit(0);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    kill(-pid, SIGKILL);
    if (WIFSIGNALED(status)) {
        say("died of SIG%s", sigabbrev_np(WTERMSIG(status)));
    } else if (WEXITSTATUS(status) != 0) {
        say("exit status %d", WEXITSTATUS(status));
    }
}

int main(int argc, char **argv) {
    here = getenv("PROBE_HERE");
    there = getenv("PROBE_THERE");
    if (argc < 2 || !here || !there) {
        return 2;
    }
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        if (strcmp(groups[i].name, argv[1]) != 0) {
            continue;
        }
        current_group = groups[i].name;
        for (const struct test *test = groups[i].tests; test->name; test++) {
            if (argc < 3 || strcmp(argv[2], test->name) == 0) {
                run(test);
            }
        }
        return 0;
    }
    return 2;
}
