//! The table: projects as they are found, on busybox.

/// A Dockerfile and what it must yield.
pub(super) struct Case {
    pub name: &'static str,
    pub dockerfile: &'static str,
    /// Files of the context; `-> target` is a link, `*.tar` an archive of `path=contents`.
    pub files: &'static [(&'static str, &'static str)],
    /// More words for `build`; `CONTEXT` is the context's directory.
    pub arguments: &'static [&'static str],
    /// Whether the classic builder can do it.
    pub classic: bool,
    /// What differs from the base image.
    pub yields: &'static [&'static str],
    /// What to look at in the image's description.
    pub format: &'static str,
    pub config: &'static str,
}

/// A case of what most have.
pub(super) const CASE: Case = Case {
    name: "",
    dockerfile: "",
    files: &[],
    arguments: &[],
    classic: true,
    yields: &[],
    format: "",
    config: "",
};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "node-app",
        dockerfile: "FROM busybox AS deps\nWORKDIR /app\nCOPY package*.json ./\nRUN mkdir node_modules && cp package.json node_modules/dep\n\
                     FROM busybox\nENV NODE_ENV=production\nWORKDIR /app\nCOPY --from=deps /app/node_modules ./node_modules\nCOPY . .\n\
                     USER app\nEXPOSE 3000\nCMD [\"node\", \"server.js\"]\n",
        files: &[
            ("package.json", "{}"),
            ("package-lock.json", "[]"),
            ("server.js", "run"),
            ("node_modules/junk", "x"),
            (".dockerignore", "node_modules\nDockerfile\n.dockerignore\n"),
        ],
        yields: &[
            "/app d755 0:0",
            "/app/node_modules d755 0:0",
            "/app/node_modules/dep f644 0:0 {}",
            "/app/package-lock.json f644 0:0 []",
            "/app/package.json f644 0:0 {}",
            "/app/server.js f644 0:0 run",
        ],
        format: "{{.Config.User}} {{json .Config.ExposedPorts}} {{json .Config.Cmd}} {{.Config.WorkingDir}}",
        config: "app {\"3000/tcp\":{}} [\"node\",\"server.js\"] /app",
        ..CASE
    },
    Case {
        name: "python-app",
        dockerfile: "# syntax=docker/dockerfile:1\nARG PYTHON=latest\nFROM busybox:${PYTHON}\nENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=off\n\
                     WORKDIR /srv\nCOPY requirements.txt .\nRUN --mount=type=cache,target=/root/.cache/pip \
                     cat requirements.txt > /root/.cache/pip/seen && cp /root/.cache/pip/seen installed\nCOPY src/ .\n\
                     ENTRYPOINT [\"python\"]\nCMD [\"main.py\"]\n",
        files: &[("requirements.txt", "flask"), ("src/main.py", "app"), ("src/pkg/__init__.py", "")],
        yields: &[
            "/srv d755 0:0",
            "/srv/installed f644 0:0 flask",
            "/srv/main.py f644 0:0 app",
            "/srv/pkg d755 0:0",
            "/srv/pkg/__init__.py f644 0:0",
            "/srv/requirements.txt f644 0:0 flask",
        ],
        format: "{{json .Config.Entrypoint}} {{json .Config.Cmd}} {{index .Config.Env 1}}",
        config: "[\"python\"] [\"main.py\"] PYTHONUNBUFFERED=1",
        ..CASE
    },
    Case {
        name: "static-binary",
        dockerfile: "FROM busybox AS build\nWORKDIR /src\nCOPY main.c .\nRUN cp main.c /out && chmod 755 /out\n\
                     FROM scratch\nCOPY --from=build /out /server\nCOPY --from=build /etc/passwd /etc/passwd\nUSER 1000:1000\nENTRYPOINT [\"/server\"]\n",
        files: &[("main.c", "int main;")],
        arguments: &["--target", "build"],
        yields: &["/out f755 0:0 int main;", "/src d755 0:0", "/src/main.c f644 0:0 int main;"],
        ..CASE
    },
    Case {
        name: "go-vendor",
        dockerfile: "FROM busybox AS base\nWORKDIR /go\nCOPY go.mod go.sum ./\nFROM base AS build\nCOPY . .\nRUN cat go.mod go.sum main.go > /bin/app.out\n\
                     FROM base AS lint\nRUN exit 1\nFROM busybox\nCOPY --from=build /bin/app.out /usr/bin/app\n",
        files: &[("go.mod", "m"), ("go.sum", "s"), ("main.go", "g")],
        yields: &["/usr/bin/app f644 0:0 msg"],
        ..CASE
    },
    Case {
        name: "rust-cargo",
        dockerfile: "FROM busybox AS chef\nWORKDIR /w\nFROM chef AS planner\nCOPY . .\nRUN ls Cargo.toml src > recipe\n\
                     FROM chef\nCOPY --from=planner /w/recipe recipe\nRUN --mount=type=bind,target=/ctx cp /ctx/src/main.rs .\n",
        files: &[("Cargo.toml", "[package]"), ("src/main.rs", "fn main"), (".dockerignore", "Dockerfile\n")],
        yields: &[
            "/w d755 0:0",
            "/w/main.rs f644 0:0 fn main",
            "/w/recipe f644 0:0 Cargo.toml\\n\\nsrc:\\nmain.rs\\n",
        ],
        ..CASE
    },
    Case {
        name: "service-account",
        dockerfile: "FROM busybox\nRUN echo 'svc:x:77:77::/:/bin/sh' >> /etc/passwd && mkdir -p /var/lib/svc && chown 77:77 /var/lib/svc\n\
                     USER svc\nRUN id -u > /var/lib/svc/me\nVOLUME /var/lib/svc\nSTOPSIGNAL SIGINT\n",
        yields: &[
            "/etc/passwd f644 0:0 root:x:0:0:root:/root:/bin/sh\\napp:x:1000:1000:app:/home/app:/bin/sh\\nsvc:x:77:77::/:/bin/sh\\n",
            "/var/lib d755 0:0",
            "/var/lib/svc d755 77:77",
            "/var/lib/svc/me f644 77:77 77\\n",
        ],
        format: "{{.Config.User}} {{json .Config.Volumes}} {{.Config.StopSignal}}",
        config: "svc {\"/var/lib/svc\":{}} SIGINT",
        ..CASE
    },
    Case {
        name: "web-root",
        dockerfile: "FROM busybox\nADD site.tar /var/www/\nCOPY --chown=app:app conf/*.conf /etc/httpd/\nHEALTHCHECK --interval=5s --retries=2 CMD wget -q localhost\n\
                     EXPOSE 80 443/tcp 53/udp\n",
        files: &[
            ("site.tar", "html/index=hello html/css/a=b"),
            ("conf/a.conf", "A"),
            ("conf/b.conf", "B"),
            ("conf/c", ""),
        ],
        yields: &[
            "/etc/httpd d755 1000:1000",
            "/etc/httpd/a.conf f644 1000:1000 A",
            "/etc/httpd/b.conf f644 1000:1000 B",
            "/var/www/html d755 0:0",
            "/var/www/html/css d755 0:0",
            "/var/www/html/css/a f640 7:8 b",
            "/var/www/html/index f640 7:8 hello",
        ],
        format: "{{json .Config.Healthcheck.Test}} {{.Config.Healthcheck.Retries}} {{len .Config.ExposedPorts}}",
        config: "[\"CMD-SHELL\",\"wget -q localhost\"] 2 3",
        ..CASE
    },
    Case {
        name: "configuration-by-heredoc",
        dockerfile: "FROM busybox\nARG PORT=80\nRUN <<EOF\nset -e\nmkdir /conf\necho one > /conf/one\nEOF\n\
                     COPY <<EOF <<-\"RAW\" /conf/\nlisten $PORT\nEOF\n\traw $PORT\nRAW\n",
        arguments: &["--build-arg", "PORT=8080"],
        yields: &[
            "/conf d755 0:0",
            "/conf/EOF f644 0:0 listen 8080\\n",
            "/conf/RAW f644 0:0 raw $PORT\\n",
            "/conf/one f644 0:0 one\\n",
        ],
        ..CASE
    },
    Case {
        name: "secret",
        dockerfile: "FROM busybox\nRUN --mount=type=secret,id=npmrc,target=/root/.npmrc,mode=0400 wc -c < /root/.npmrc > /size\n\
                     RUN --mount=type=secret,id=none test ! -e /run/secrets/none\n",
        files: &[("npmrc", "token")],
        arguments: &["--secret", "id=npmrc,src=CONTEXT/npmrc"],
        classic: false,
        yields: &["/size f644 0:0 5\\n"],
        ..CASE
    },
    Case {
        name: "allow-list",
        dockerfile: "FROM busybox\nCOPY . /c/\n",
        files: &[
            (".dockerignore", "*\n!src\n!docs/*.md\nsrc/**/*.tmp\n# comment\n\n"),
            ("src/a", "a"),
            ("src/deep/b.tmp", "x"),
            ("src/deep/c", "c"),
            ("docs/r.md", "r"),
            ("docs/r.txt", "x"),
            ("top", "x"),
        ],
        yields: &[
            "/c d755 0:0",
            "/c/docs d755 0:0",
            "/c/docs/r.md f644 0:0 r",
            "/c/src d755 0:0",
            "/c/src/a f644 0:0 a",
            "/c/src/deep d755 0:0",
            "/c/src/deep/c f644 0:0 c",
        ],
        ..CASE
    },
    Case {
        name: "onbuild",
        dockerfile: "FROM busybox AS parent\nONBUILD COPY app /app\nONBUILD RUN cat /app > /copied\nRUN echo parent > /p\nFROM parent\nRUN echo child >> /p\n",
        files: &[("app", "a")],
        yields: &["/app f644 0:0 a", "/copied f644 0:0 a", "/p f644 0:0 parent\\nchild\\n"],
        format: "{{json .Config.OnBuild}}",
        config: "null",
        ..CASE
    },
    Case {
        name: "labels-and-arguments",
        dockerfile: "FROM busybox\nARG VERSION\nARG COMMIT=none\nLABEL org.example.version=$VERSION \"org.example.words\"=\"two words\"\nENV FULL=${VERSION:-0}+${COMMIT:+c}\n\
                     RUN echo $FULL $VERSION > /v\n",
        arguments: &["--build-arg", "VERSION=1.2", "--label", "given=yes"],
        yields: &["/v f644 0:0 1.2+c 1.2\\n"],
        format: "{{index .Config.Labels \"org.example.version\"}},{{index .Config.Labels \"org.example.words\"}},{{.Config.Labels.given}}",
        config: "1.2,two words,yes",
        ..CASE
    },
];
