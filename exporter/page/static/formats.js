// Values as people read them: the same as page/formats.py, which a test holds.

export const ABSENT = "–";
const SIZES = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
const COUNTS = ["", "k", "M", "G"];
const YEAR_10000 = 253402300800;

function digits(value) {
  for (const [limit, places] of [[9.995, 2], [99.95, 1]]) {
    if (value < limit) {
      const scale = 10 ** places;
      return (Math.floor(value * scale + 0.5) / scale).toFixed(places).replace(/\.?0+$/, "");
    }
  }
  return String(Math.floor(value + 0.5));
}

function stepped(value, step, units) {
  for (const unit of units.slice(0, -1)) {
    if (value < step - 0.5) return `${digits(value)} ${unit}`.trimEnd();
    value /= step;
  }
  return `${digits(value)} ${units.at(-1)}`;
}

function latency(value) {
  for (const [factor, unit] of [[1e6, "µs"], [1e3, "ms"]]) {
    if (value * factor < 999.5) return `${digits(value * factor)} ${unit}`;
  }
  return `${digits(value)} s`;
}

function duration(value) {
  if (value < 60) return `${digits(value)} s`;
  const whole = Math.floor(value);
  for (const [unit, name, smaller, smallerName] of [[86400, "d", 3600, "h"], [3600, "h", 60, "min"]]) {
    if (whole >= unit) return `${Math.floor(whole / unit)} ${name} ${Math.floor((whole % unit) / smaller)} ${smallerName}`;
  }
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

const size = (value) => stepped(value, 1024, SIZES);

export const FORMATS = {
  size,
  rate: (value) => `${size(value)}/s`,
  per_second: (value) => `${stepped(value, 1000, COUNTS)}/s`,
  percent: (value) => `${digits(value * 100)} %`,
  cores: digits,
  latency,
  duration,
  count: (value) => String(Math.floor(value)).replace(/\B(?=(\d{3})+$)/g, ","),
  clock: (value) => (value < YEAR_10000 ? new Date(Math.floor(value) * 1000).toISOString().slice(0, 19).replace("T", " ") : ABSENT),
};

export function shown(name, value) {
  if (value === null || value === undefined || value === "") return ABSENT;
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "string") return name === "word" ? value.replaceAll("_", " ") : value;
  return name in FORMATS ? FORMATS[name](value) : String(value);
}
