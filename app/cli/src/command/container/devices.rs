//! The flags of `run` and `create` about devices and their limits.

use bollard_stubs::models::{DeviceRequest, HostConfig, ResourcesBlkioWeightDevice, ThrottleDevice};
use clap::Args;

use crate::options::bytes;

/// Limits of block devices, real-time scheduling, and requests for graphics processors.
#[derive(Debug, Clone, Default, Args)]
pub struct DeviceFlags {
    /// Block IO weight (relative device weight)
    #[arg(long, value_name = "list", value_parser = weight)]
    blkio_weight_device: Vec<ResourcesBlkioWeightDevice>,
    /// Limit CPU real-time period in microseconds
    #[arg(long, value_name = "int")]
    cpu_rt_period: Option<i64>,
    /// Limit CPU real-time runtime in microseconds
    #[arg(long, value_name = "int")]
    cpu_rt_runtime: Option<i64>,
    /// Limit read rate (bytes per second) from a device
    #[arg(long, value_name = "list", value_parser = bytes_per_second)]
    device_read_bps: Vec<ThrottleDevice>,
    /// Limit read rate (IO per second) from a device
    #[arg(long, value_name = "list", value_parser = operations_per_second)]
    device_read_iops: Vec<ThrottleDevice>,
    /// Limit write rate (bytes per second) to a device
    #[arg(long, value_name = "list", value_parser = bytes_per_second)]
    device_write_bps: Vec<ThrottleDevice>,
    /// Limit write rate (IO per second) to a device
    #[arg(long, value_name = "list", value_parser = operations_per_second)]
    device_write_iops: Vec<ThrottleDevice>,
    /// GPU devices to add to the container ('all' to pass all GPUs)
    #[arg(long, value_name = "gpu-request", value_parser = graphics)]
    gpus: Vec<DeviceRequest>,
    /// Tune container memory swappiness (0 to 100)
    #[arg(long, value_name = "int", allow_negative_numbers = true)]
    memory_swappiness: Option<i64>,
}

impl DeviceFlags {
    /// Puts what was asked for into a host configuration.
    pub fn apply(&self, host: &mut HostConfig) {
        fn some<T: Clone>(list: &[T]) -> Option<Vec<T>> {
            (!list.is_empty()).then(|| list.to_vec())
        }
        host.blkio_weight_device = some(&self.blkio_weight_device);
        host.cpu_realtime_period = self.cpu_rt_period;
        host.cpu_realtime_runtime = self.cpu_rt_runtime;
        host.blkio_device_read_bps = some(&self.device_read_bps);
        host.blkio_device_read_iops = some(&self.device_read_iops);
        host.blkio_device_write_bps = some(&self.device_write_bps);
        host.blkio_device_write_iops = some(&self.device_write_iops);
        host.device_requests = some(&self.gpus);
        host.memory_swappiness = self.memory_swappiness;
    }
}

/// Splits `path:value`.
fn device(text: &str) -> Result<(String, &str), String> {
    match text.split_once(':') {
        Some((path, value)) if path.starts_with("/dev/") => Ok((path.to_owned(), value)),
        Some(_) => Err(format!("bad format for device path: {text}")),
        None => Err(format!("bad format: {text}")),
    }
}

fn weight(text: &str) -> Result<ResourcesBlkioWeightDevice, String> {
    let (path, value) = device(text)?;
    let weight: usize = value.parse().map_err(|_| format!("invalid weight for device: {text}"))?;
    if weight != 0 && !(10..=1000).contains(&weight) {
        return Err(format!("invalid weight for device: {text}"));
    }
    Ok(ResourcesBlkioWeightDevice { path: Some(path), weight: Some(weight) })
}

fn bytes_per_second(text: &str) -> Result<ThrottleDevice, String> {
    let (path, value) = device(text)?;
    let rate = bytes::parse(value).ok().filter(|rate| *rate >= 0);
    let rate = rate.ok_or_else(|| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a \
             positive integer. Unit is optional and can be kb, mb, or gb"
        )
    })?;
    Ok(ThrottleDevice { path: Some(path), rate: Some(rate) })
}

fn operations_per_second(text: &str) -> Result<ThrottleDevice, String> {
    let (path, value) = device(text)?;
    let rate: u32 = value.parse().map_err(|_| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive \
             integer"
        )
    })?;
    Ok(ThrottleDevice { path: Some(path), rate: Some(rate.into()) })
}

/// Reads `all`, a count, or `device=0,driver=nvidia,…`.
fn graphics(text: &str) -> Result<DeviceRequest, String> {
    let mut request = DeviceRequest { count: None, ..Default::default() };
    let mut capabilities = vec!["gpu".to_owned()];
    for field in crate::options::mount::fields(text)? {
        let (key, value) = field.split_once('=').unwrap_or(("count", &field));
        match key {
            "count" if value == "all" => request.count = Some(-1),
            "count" => {
                let count = value.parse().map_err(|_| {
                    format!("invalid count ({value}): value must be either \"all\" or an integer")
                })?;
                request.count = Some(count);
            }
            "driver" => request.driver = Some(value.to_owned()),
            "device" => request.device_ids = Some(value.split(',').map(str::to_owned).collect()),
            "capabilities" => capabilities.extend(value.split(',').map(str::to_owned)),
            "options" => {
                let pairs = value.split(',').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
                let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
                request.options = Some(pairs.collect());
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if request.device_ids.is_none() {
        request.count.get_or_insert(1);
    }
    request.capabilities = Some(vec![capabilities]);
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_weights_need_a_device() {
        let rate = bytes_per_second("/dev/sda:1mb").unwrap();
        assert_eq!((rate.path.as_deref(), rate.rate), (Some("/dev/sda"), Some(1 << 20)));
        assert_eq!(operations_per_second("/dev/sda:100").unwrap().rate, Some(100));
        assert_eq!(weight("/dev/sda:300").unwrap().weight, Some(300));
        assert_eq!(weight("sda:300").unwrap_err(), "bad format for device path: sda:300");
        assert_eq!(weight("/dev/sda").unwrap_err(), "bad format: /dev/sda");
        assert_eq!(weight("/dev/sda:5").unwrap_err(), "invalid weight for device: /dev/sda:5");
        assert!(
            bytes_per_second("/dev/sda:x").unwrap_err().starts_with("invalid rate for device: /dev/sda:x.")
        );
        assert!(operations_per_second("/dev/sda:-1").is_err());
    }

    #[test]
    fn graphics_processors_are_asked_for_by_count_or_name() {
        let all = graphics("all").unwrap();
        assert_eq!((all.count, all.capabilities), (Some(-1), Some(vec![vec!["gpu".to_owned()]])));
        let named = graphics("\"device=0,2\",driver=nvidia").unwrap();
        assert_eq!(named.device_ids, Some(vec!["0".to_owned(), "2".to_owned()]));
        assert_eq!((named.count, named.driver.as_deref()), (None, Some("nvidia")));
        assert!(graphics("some").is_err());
    }
}
