"""From a recording to windows of sound: decoding, resampling, cutting, levels."""
