/* Gives everything back to its sender, datagrams and connections; a half-close too. Usage: echo PORT */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 4000

static int open_socket(int type, int port)
{
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	struct sockaddr_in four = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET6, type, 0);

	if (fd >= 0 && !bind(fd, (void *)&six, sizeof six))
		return fd;
	fd = socket(AF_INET, type, 0);
	if (fd < 0 || bind(fd, (void *)&four, sizeof four)) {
		perror("bind");
		exit(1);
	}
	return fd;
}

int main(int count, char **arguments)
{
	static char buffer[65536];
	static struct pollfd fds[MOST];
	struct rlimit limit = { MOST + 10, MOST + 10 };
	int port = count > 1 ? atoi(arguments[1]) : 7, used = 2, at;

	setrlimit(RLIMIT_NOFILE, &limit);
	fds[0].fd = open_socket(SOCK_DGRAM, port);
	fds[1].fd = open_socket(SOCK_STREAM, port);
	listen(fds[1].fd, 4096);
	fds[0].events = fds[1].events = POLLIN;
	for (;;) {
		if (poll(fds, used, -1) < 0)
			continue;
		if (fds[0].revents) {
			struct sockaddr_storage from;
			socklen_t size = sizeof from;
			ssize_t length = recvfrom(fds[0].fd, buffer, sizeof buffer, 0, (void *)&from, &size);

			if (length >= 0)
				sendto(fds[0].fd, buffer, length, 0, (void *)&from, size);
		}
		for (at = used - 1; at >= 2; at--) {
			ssize_t length;

			if (!fds[at].revents)
				continue;
			length = read(fds[at].fd, buffer, 4096);
			if (length > 0 && write(fds[at].fd, buffer, length) == length)
				continue;
			close(fds[at].fd);
			fds[at] = fds[--used];
		}
		if (fds[1].revents && used < MOST) {
			int fd = accept(fds[1].fd, NULL, NULL);

			if (fd >= 0)
				fds[used++] = (struct pollfd){ fd, POLLIN, 0 };
		}
	}
}
