//! The table's other half: one thing of the language each, in the forms that people use.

use super::table::{CASE, Case};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "owners-by-number",
        dockerfile: "FROM busybox\nCOPY --chown=5:6 tree /tree\nCOPY --chown=app a /a\n",
        files: &[("tree/x/y", "1"), ("a", "2")],
        yields: &["/a f644 1000:1000 2", "/tree d755 5:6", "/tree/x d755 5:6", "/tree/x/y f644 5:6 1"],
        ..CASE
    },
    Case {
        name: "an-owner-that-nobody-knows",
        dockerfile: "FROM busybox\nCOPY --chown=nobody-knows:him a /a\n",
        files: &[("a", "1")],
        yields: &["/a f644 0:0 1"],
        ..CASE
    },
    Case {
        name: "modes",
        dockerfile: "FROM busybox\nCOPY --chmod=711 a /a\nRUN cp /a /s && chmod 4755 /s && mkdir -m 1777 /t\n",
        files: &[("a", "1")],
        yields: &["/a f711 0:0 1", "/s f4755 0:0 1", "/t d1777 0:0"],
        ..CASE
    },
    Case {
        name: "user-and-directory",
        dockerfile: "FROM busybox\nWORKDIR /home/app\nUSER app\nWORKDIR sub\nUSER 3:4\nRUN touch /tmp/n 2>/dev/null || true\nUSER root\nRUN pwd > where\n",
        yields: &["/home/app/sub d755 1000:1000", "/home/app/sub/where f644 0:0 /home/app/sub\\n"],
        format: "{{.Config.User}} {{.Config.WorkingDir}}",
        config: "root /home/app/sub",
        ..CASE
    },
    Case {
        name: "links",
        dockerfile: "FROM busybox AS a\nRUN mkdir /d && echo 1 > /d/f && ln /d/f /d/h && ln -s f /d/s && ln -s /nowhere /d/dangling\nFROM busybox\nCOPY --from=a /d /d\n\
                     RUN ln -s /d /e\nCOPY a /e/\n",
        files: &[("a", "2")],
        yields: &[
            "/d d755 0:0",
            "/d/a f644 0:0 2",
            "/d/dangling l /nowhere",
            "/d/f f644 0:0 1\\n",
            "/d/h f644 0:0 1\\n",
            "/d/s l f",
            "/e l /d",
        ],
        ..CASE
    },
    Case {
        name: "links-of-the-context",
        dockerfile: "FROM busybox\nCOPY dir /dir\nCOPY link /file\n",
        files: &[("dir/real", "r"), ("dir/soft", "-> real"), ("target", "t"), ("link", "-> target")],
        yields: &["/dir d755 0:0", "/dir/real f644 0:0 r", "/dir/soft l real", "/file f644 0:0 t"],
        ..CASE
    },
    Case {
        name: "removals",
        dockerfile: "FROM busybox\nRUN rm /etc/shadow && mkdir /x && touch /x/y && echo a > /z\nRUN rm -r /x && echo f > /x && rm /z && mkdir /z\n",
        yields: &["/etc/shadow gone", "/x f644 0:0 f\\n", "/z d755 0:0"],
        ..CASE
    },
    Case {
        name: "replaced-directory",
        dockerfile: "FROM busybox\nRUN mkdir /x && touch /x/old\nRUN rm -r /x && mkdir /x && touch /x/new\n",
        yields: &["/x d755 0:0", "/x/new f644 0:0"],
        ..CASE
    },
    Case {
        name: "stages-by-number",
        dockerfile: "FROM busybox\nRUN echo 0 > /n\nFROM busybox AS One\nRUN echo 1 > /n\nFROM busybox\nCOPY --from=0 /n /n0\nCOPY --from=one /n /n1\nCOPY --from=busybox /etc/group /g\n",
        yields: &["/g f644 0:0 root:x:0:\\napp:x:1000:\\n", "/n0 f644 0:0 0\\n", "/n1 f644 0:0 1\\n"],
        ..CASE
    },
    Case {
        name: "stage-settings-are-inherited",
        dockerfile: "ARG GLOBAL=g\nFROM busybox AS a\nARG GLOBAL\nARG OWN=o\nENV E=$GLOBAL$OWN\nWORKDIR /wd\nFROM a\nRUN echo \"$E [$OWN] $PWD\" > out\n",
        yields: &["/wd d755 0:0", "/wd/out f644 0:0 go [o] /wd\\n"],
        ..CASE
    },
    Case {
        name: "several-sources",
        dockerfile: "FROM busybox\nCOPY a b* [c-d] /d/\nCOPY [\"with blank\", \"/e f/\"]\n",
        files: &[("a", "1"), ("b1", "2"), ("b2", "3"), ("c", "4"), ("d", "5"), ("with blank", "6")],
        yields: &[
            "/d d755 0:0",
            "/d/a f644 0:0 1",
            "/d/b1 f644 0:0 2",
            "/d/b2 f644 0:0 3",
            "/d/c f644 0:0 4",
            "/d/d f644 0:0 5",
            "/e f d755 0:0",
            "/e f/with blank f644 0:0 6",
        ],
        ..CASE
    },
    Case {
        name: "variables",
        dockerfile: "FROM busybox\nENV A=\"x y\" B=z\\ w C='$A'\nENV D=${A}-$B E=${NONE:-d$B}\nENV PATH=/opt/bin:$PATH\nRUN printf '%s|' \"$A\" \"$B\" \"$C\" \"$D\" \"$E\" > /e\nCOPY ${B:+f} /\n",
        files: &[("f", "1")],
        yields: &["/e f644 0:0 x y|z w|$A|x y-z w|dz w|", "/f f644 0:0 1"],
        ..CASE
    },
    Case {
        name: "continuations",
        dockerfile: "FROM busybox\nRUN echo a > /a && \\\n    # in between\n    echo b > /b && \\\n\n    echo \"c \\\nd\" > /c\n",
        yields: &["/a f644 0:0 a\\n", "/b f644 0:0 b\\n", "/c f644 0:0 c d\\n"],
        ..CASE
    },
    Case {
        name: "another-escape",
        dockerfile: "# escape=`\nFROM busybox\nRUN echo a`\n b > /a\\b\n",
        yields: &["/ab f644 0:0 a b\\n"],
        ..CASE
    },
    Case {
        name: "written-on-windows",
        dockerfile: "FROM busybox\r\nENV A=1 \\\r\n  B=2\r\nRUN echo $A$B > /a\r\nCOPY f /f\r\n",
        files: &[("f", "x\r\ny")],
        yields: &["/a f644 0:0 12\\n", "/f f644 0:0 x\r\\ny"],
        ..CASE
    },
    Case {
        name: "shell",
        dockerfile: "FROM busybox\nSHELL [\"/bin/sh\", \"-eux\", \"-c\"]\nRUN echo $- > /flags; true\nRUN [\"/bin/sh\", \"-c\", \"echo exec > /exec\"]\nCMD echo x\n",
        yields: &["/exec f644 0:0 exec\\n", "/flags f644 0:0 uxce\\n"],
        format: "{{json .Config.Shell}} {{json .Config.Cmd}}",
        config: "[\"/bin/sh\",\"-eux\",\"-c\"] [\"/bin/sh\",\"-eux\",\"-c\",\"echo x\"]",
        ..CASE
    },
    Case {
        name: "entrypoint-resets-command",
        dockerfile: "FROM busybox AS a\nCMD [\"old\"]\nFROM a\nENTRYPOINT [\"new\"]\n",
        format: "{{json .Config.Entrypoint}} {{json .Config.Cmd}}",
        config: "[\"new\"] null",
        ..CASE
    },
    Case {
        name: "mounts",
        dockerfile: "FROM busybox AS src\nRUN mkdir /s && echo s > /s/f\nFROM busybox\nRUN --mount=type=bind,from=src,source=/s,target=/mnt/s --mount=type=tmpfs,target=/scratch \
                     cp /mnt/s/f /scratch/ && cp /scratch/f /f && ! touch /mnt/s/w\nRUN --mount=type=bind,source=ctx,target=/c,rw touch /c/new && ls /c > /list\n",
        files: &[("ctx/old", "")],
        yields: &["/f f644 0:0 s\\n", "/list f644 0:0 new\\nold\\n"],
        ..CASE
    },
    Case {
        name: "linked-copies",
        dockerfile: "FROM busybox AS a\nRUN mkdir -p /out/sub && echo 1 > /out/sub/f\nFROM busybox\nCOPY --link --from=a /out/ /opt/\nCOPY --link --chown=9:9 f /opt/sub/g\n",
        files: &[("f", "2")],
        yields: &["/opt d755 0:0", "/opt/sub d755 0:0", "/opt/sub/f f644 0:0 1\\n", "/opt/sub/g f644 9:9 2"],
        ..CASE
    },
    Case {
        name: "parents-and-exceptions",
        dockerfile: "# syntax=docker/dockerfile:1.7-labs\nFROM busybox\nCOPY --parents d/./s/n.txt d/r.md /p/\nCOPY --exclude=*.md --exclude=s d /d/\n",
        files: &[("d/s/n.txt", "n"), ("d/r.md", "r"), ("d/k", "k")],
        yields: &[
            "/d d755 0:0",
            "/d/k f644 0:0 k",
            "/p d755 0:0",
            "/p/d d755 0:0",
            "/p/d/r.md f644 0:0 r",
            "/p/s d755 0:0",
            "/p/s/n.txt f644 0:0 n",
        ],
        ..CASE
    },
    Case {
        name: "a-file-over-a-link",
        dockerfile: "FROM busybox\nRUN ln -s /etc/group /l && cp /etc/group /copy\nCOPY f /l\n",
        files: &[("f", "new")],
        yields: &["/copy f644 0:0 root:x:0:\\napp:x:1000:\\n", "/etc/group f644 0:0 new", "/l l /etc/group"],
        ..CASE
    },
    Case {
        name: "target",
        dockerfile: "FROM busybox AS dev\nRUN echo dev > /d\nFROM dev AS prod\nRUN exit 3\n",
        arguments: &["--target", "dev"],
        yields: &["/d f644 0:0 dev\\n"],
        ..CASE
    },
    Case {
        name: "no-files-at-all",
        dockerfile: "FROM busybox\nLABEL only=labels\nMAINTAINER somebody\n",
        format: "{{.Author}} {{.Config.Labels.only}} {{len .RootFS.Layers}}",
        config: "somebody labels 1",
        ..CASE
    },
    Case {
        name: "networks-of-steps",
        dockerfile: "FROM busybox\nRUN --network=none ip -o link | grep -c : > /links\n",
        yields: &["/links f644 0:0 1\\n"],
        ..CASE
    },
    Case {
        name: "hosts",
        dockerfile: "FROM busybox\nRUN grep -c 'extra.test' /etc/hosts > /n && df -k /dev/shm | tail -1 | awk '{print $2}' > /shm && ulimit -n > /limit\n",
        arguments: &["--add-host", "extra.test:10.9.8.7", "--shm-size", "32m", "--ulimit", "nofile=700:800"],
        yields: &["/limit f644 0:0 700\\n", "/n f644 0:0 1\\n", "/shm f644 0:0 32768\\n"],
        ..CASE
    },
    Case {
        name: "platforms",
        dockerfile: "FROM --platform=$BUILDPLATFORM busybox AS b\nARG TARGETOS TARGETARCH\nRUN echo $TARGETOS > /os && test -n $TARGETARCH\nFROM busybox\nCOPY --from=b /os /os\n",
        yields: &["/os f644 0:0 linux\\n"],
        format: "{{.Os}}",
        config: "linux",
        classic: true,
        ..CASE
    },
];
