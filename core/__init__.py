"""The ground that both papers stand on: runs, Stable Diffusion, hands, metrics. It knows neither paper."""
