/* The first process of every pod: it waits to be stopped, and reaps what is reparented to it. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void stop(int signal_number) {
	(void)signal_number;
	_exit(EXIT_SUCCESS);
}

static void reap(int signal_number) {
	(void)signal_number;
	while (waitpid(-1, NULL, WNOHANG) > 0) {
	}
}

static int on(int signal_number, void (*handler)(int), int flags) {
	struct sigaction action;
	memset(&action, 0, sizeof(action));
	action.sa_handler = handler;
	action.sa_flags = flags;
	return sigaction(signal_number, &action, NULL);
}

int main(void) {
	if (on(SIGINT, stop, 0) < 0 || on(SIGTERM, stop, 0) < 0 || on(SIGCHLD, reap, SA_NOCLDSTOP | SA_RESTART) < 0) {
		perror("pause: sigaction");
		return EXIT_FAILURE;
	}
	for (;;) {
		pause();
	}
}
