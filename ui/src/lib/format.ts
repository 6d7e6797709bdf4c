// Numbers and times for people.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

/** A size in decimal units, as docker prints it. */
export function size(bytes: number): string {
    if (!Number.isFinite(bytes) || bytes < 0) return "–";
    let value = bytes;
    let unit = 0;
    while (value >= 999.5 && unit < UNITS.length - 1) {
        value /= 1000;
        unit += 1;
    }
    const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
    return `${Number(value.toFixed(digits))} ${UNITS[unit]}`;
}

/** A size of memory, in binary units. */
export function memory(bytes: number): string {
    if (!Number.isFinite(bytes) || bytes < 0) return "–";
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let value = bytes;
    let unit = 0;
    while (value >= 1023.5 && unit < units.length - 1) {
        value /= 1024;
        unit += 1;
    }
    return `${Number(value.toFixed(unit === 0 || value >= 99.95 ? 0 : 1))} ${units[unit]}`;
}

export function percent(value: number): string {
    if (!Number.isFinite(value)) return "–";
    return `${value >= 99.95 ? Math.round(value) : value.toFixed(1)} %`;
}

/** How long something takes or has taken, in its two largest units. */
export function duration(seconds: number): string {
    const whole = Math.max(0, Math.floor(seconds));
    const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
    if (days > 0) return hours > 0 && days < 10 ? `${days} d ${hours} h` : `${days} d`;
    if (hours > 0) return minutes > 0 ? `${hours} h ${minutes} min` : `${hours} h`;
    if (minutes > 0) return `${minutes} min`;
    return `${whole} s`;
}

/** How long ago something was; `time` is a date's text or seconds since 1970. */
export function ago(time: string | number | null | undefined, now = Date.now()): string {
    const then = typeof time === "number" ? time * 1000 : Date.parse(time ?? "");
    // Docker's way to say never.
    if (!Number.isFinite(then) || then < 0) return "–";
    const seconds = (now - then) / 1000;
    if (seconds < 5) return "just now";
    return `${duration(seconds)} ago`;
}

/** A date and a time of day as people write them here. */
export function moment(time: string | number | null | undefined): string {
    const then = typeof time === "number" ? time * 1000 : Date.parse(time ?? "");
    return Number.isFinite(then) && then > 0 ? new Date(then).toLocaleString() : "–";
}

/** The time of day of a log's line, with milliseconds. */
export function clock(time: string): string {
    const then = new Date(time);
    if (Number.isNaN(then.getTime())) return time;
    const two = (value: number) => String(value).padStart(2, "0");
    const three = String(then.getMilliseconds()).padStart(3, "0");
    return `${two(then.getHours())}:${two(then.getMinutes())}:${two(then.getSeconds())}.${three}`;
}

/** The first twelve digits of an id, without the name of its hash. */
export function short(id: string | null | undefined): string {
    return (id ?? "").replace(/^sha256:/, "").slice(0, 12);
}

/** One thing or many. */
export function count(number: number, one: string, many = `${one}s`): string {
    return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

/** How long a step took, from milliseconds. */
export function seconds(milliseconds: number): string {
    return milliseconds < 59_950 ? `${(milliseconds / 1000).toFixed(1)} s` : duration(milliseconds / 1000);
}
