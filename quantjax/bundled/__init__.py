"""The demonstration sets, which need no download: the same in every process, drawn, rendered, or from dependencies.

- `images`   real digits, and six kinds of outliers
- `streets`  rendered street scenes, put together from `street_canvas`, `street_parts` and `street_textures`
- `street_objects`  things to paste into them

`quantjax.data` opens them by name beside the published sets.
"""
