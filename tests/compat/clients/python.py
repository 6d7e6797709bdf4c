"""What programs in Python do with Docker: testcontainers, and docker-py newer than the release whose suite is run.

Prints a line for each case, `NAME PASSED` or `NAME FAILED why`."""

import http.client
import io
import json
import os
import socket
import tarfile
import tempfile
import threading
import time
import traceback
import urllib.request

import docker
from testcontainers.core.container import DockerContainer
from testcontainers.core.image import DockerImage
from testcontainers.core.network import Network
from testcontainers.core.waiting_utils import wait_for_logs

client = docker.from_env()
SERVER = ["sh", "-c", "mkdir -p /www && echo served > /www/index.html && exec httpd -f -p 80 -h /www"]


def check(found, wanted):
    assert found == wanted, f"{found!r} is not {wanted!r}"


def eventually(attempt):
    for _ in range(200):
        try:
            return attempt()
        except Exception:
            time.sleep(0.05)
    return attempt()


def a_server_is_reached_on_its_mapped_port():
    with DockerContainer("alpine").with_command(SERVER).with_exposed_ports(80) as server:
        url = f"http://{server.get_container_host_ip()}:{server.get_exposed_port(80)}/"
        check(eventually(lambda: urllib.request.urlopen(url).read()), b"served\n")


def the_output_of_a_short_exec_arrives_whole():
    # testcontainers gives itself another name than docker-py.
    with DockerContainer("alpine").with_command("sleep 1000").with_env("A", "b") as container:
        for _ in range(10):
            ended = container.exec(["sh", "-c", "echo $A; exit 4"])
            check((ended.exit_code, ended.output), (4, b"b\n"))
    container = client.containers.run("alpine", "sleep 1000", detach=True)
    for _ in range(10):
        check(container.exec_run("echo out", tty=True).output, b"out\r\n")
    parts = container.exec_run(["sh", "-c", "echo out; echo err >&2"], demux=True).output
    check(parts, (b"out\n", b"err\n"))
    container.remove(force=True)


def logs_are_waited_for_and_streamed():
    with DockerContainer("alpine").with_command(["sh", "-c", "echo ready; sleep 1000"]) as container:
        wait_for_logs(container, "ready", timeout=20)
    container = client.containers.run("alpine", ["sh", "-c", "for i in 1 2 3; do echo $i; done"], detach=True)
    check(b"".join(container.logs(stream=True, follow=True)), b"1\n2\n3\n")
    check(container.wait()["StatusCode"], 0)
    container.remove()


def an_alias_is_a_name_in_its_network():
    with Network() as network:
        server = DockerContainer("alpine").with_command(SERVER).with_network(network).with_network_aliases("web")
        visitor = DockerContainer("alpine").with_command("sleep 1000").with_network(network)
        with server, visitor:
            command = "for i in $(seq 50); do wget -q -O - http://web/ 2>/dev/null && break; sleep 0.1; done"
            check(visitor.exec(["sh", "-c", command]).output, b"served\n")


def an_image_is_built_and_run():
    with tempfile.TemporaryDirectory() as context:
        with open(os.path.join(context, "Dockerfile"), "w") as dockerfile:
            dockerfile.write("FROM alpine\nARG V\nRUN echo v$V > /v\nCMD [\"sh\", \"-c\", \"cat /v; sleep 1000\"]\n")
        with DockerImage(path=context, tag="clients:1", buildargs={"V": "5"}) as image:
            with DockerContainer(str(image)) as container:
                wait_for_logs(container, "v5", timeout=20)


def files_go_in_and_out():
    container = client.containers.create("alpine", "true")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("file")
        member.size, member.uid = 3, 5
        archive.addfile(member, io.BytesIO(b"abc"))
    assert container.put_archive("/tmp", packed.getvalue())
    stream, stat = container.get_archive("/tmp/file")
    members = tarfile.open(fileobj=io.BytesIO(b"".join(stream))).getmembers()
    check([(member.name, member.uid, member.size) for member in members], [("file", 5, 3)])
    check((stat["name"], stat["size"], stat["mode"], stat["linkTarget"]), ("file", 3, 0o644, ""))
    check(container.diff(), [{"Path": "/tmp", "Kind": 0}, {"Path": "/tmp/file", "Kind": 1}])
    container.remove()


def events_tell_a_containers_life():
    seen, stream = [], client.events(decode=True, filters={"type": "container", "event": ["create", "die", "destroy"]})

    def listen():
        for event in stream:
            seen.append(event["Action"])

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    # A container of before may end meanwhile: what is waited for is the whole of this one.
    time.sleep(0.3)
    client.containers.run("alpine", "true", remove=True)
    eventually(lambda: check(seen[-3:], ["create", "die", "destroy"]))
    stream.close()


def what_programs_read_without_looking_is_there():
    config = client.images.get("alpine").attrs["Config"]
    for field in ["Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "User", "WorkingDir"]:
        assert field in config, field
    container = client.containers.run("alpine", "sleep 1000", detach=True, ports={"80/tcp": None})
    stats = container.stats(stream=False)
    memory = stats["memory_stats"]
    assert memory["usage"] - memory["stats"].get("inactive_file", memory["stats"].get("cache")) > 0, memory
    assert stats["cpu_stats"]["system_cpu_usage"] >= stats["precpu_stats"]["system_cpu_usage"] > 0, stats
    binding = container.attrs["HostConfig"]["PortBindings"]["80/tcp"][0]
    check((binding["HostIp"], binding["HostPort"]), ("", ""))
    container.remove(force=True)
    check(client.networks.get("host").attrs["IPAM"]["Config"], None)


def a_url_may_have_what_ought_to_be_encoded():
    # As people type it into curl.
    path = os.environ["DOCKER_HOST"].removeprefix("unix://")
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    query = '/containers/json?all=1&filters={"name":["nothing-has-this-name"]}'
    connection.sendall(f"GET {query} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n".encode())
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    check((answer.status, json.loads(answer.read())), (200, []))


def a_subnet_of_a_family_that_is_off_is_remembered():
    pool = docker.types.IPAMPool(subnet="2001:db8:77::/64", gateway="2001:db8:77::1")
    network = client.networks.create("clients-six", ipam=docker.types.IPAMConfig(pool_configs=[pool]))
    try:
        network.reload()
        configs = network.attrs["IPAM"]["Config"]
        check((len(configs), configs[0]["Subnet"], network.attrs["EnableIPv6"]), (2, "2001:db8:77::/64", False))
    finally:
        network.remove()


def refusals_are_in_dockers_words():
    def refusal(attempt):
        try:
            attempt()
        except docker.errors.APIError as error:
            return error.status_code, error.explanation
        raise AssertionError("it was not refused")

    status, text = refusal(lambda: client.containers.run("alpine", "no-such-program", name="clients-failed"))
    client.containers.get("clients-failed").remove()
    wanted = "runc create failed: unable to start container process: exec: \"no-such-program\": executable file not found"
    assert status == 400 and wanted in text, text
    container = client.containers.create("alpine", "true")
    check(refusal(container.unpause)[0], 500)
    check(refusal(lambda: client.networks.get("bridge").connect("nothing"))[1], "No such container: nothing")
    container.remove()


CASES = [
    a_server_is_reached_on_its_mapped_port,
    the_output_of_a_short_exec_arrives_whole,
    logs_are_waited_for_and_streamed,
    an_alias_is_a_name_in_its_network,
    an_image_is_built_and_run,
    files_go_in_and_out,
    events_tell_a_containers_life,
    what_programs_read_without_looking_is_there,
    a_url_may_have_what_ought_to_be_encoded,
    a_subnet_of_a_family_that_is_off_is_remembered,
    refusals_are_in_dockers_words,
]

for case in CASES:
    try:
        case()
        print(case.__name__, "PASSED", flush=True)
    except Exception as error:
        traceback.print_exc()
        print(case.__name__, "FAILED", " ".join(str(error).split()), flush=True)
