// How NiiVue colours a slice: its own shader colours the whole volume anew for each change of the window; this one looks up
// grey value, label and uncertainty of the pixel at hand, in textures that keep the image's own order.

export const SLICE_SHADER = `#version 300 es
precision highp int;
precision highp float;
uniform highp sampler3D image;
uniform highp usampler3D labels;
uniform highp usampler3D other;
uniform highp sampler3D doubt;
uniform highp sampler2D colours;
uniform mat4 own;
uniform vec3 right;
uniform vec3 up;
uniform vec2 grey;
uniform float outline;
uniform float comparing;
uniform float doubting;
in vec3 texPos;
out vec4 color;

uint at(highp usampler3D map, vec3 place) {
  ivec3 size = textureSize(map, 0);
  return texelFetch(map, clamp(ivec3(floor(place * vec3(size))), ivec3(0), size - 1), 0).r;
}

bool edge(highp usampler3D map, vec3 place, uint here) {
  return at(map, place + right) != here || at(map, place - right) != here || at(map, place + up) != here || at(map, place - up) != here;
}

void main() {
  vec3 place = (own * vec4(texPos, 1.0)).xyz;
  vec3 shade = vec3(clamp((texture(image, place).r - grey.x) * grey.y, 0.0, 1.0));
  if (doubting > 0.0) {
    float unsure = texture(doubt, place).r;
    shade = mix(shade, vec3(1.0, 0.55 * (1.0 - unsure), 0.0), doubting * smoothstep(0.15, 0.8, unsure));
  }
  uint label = at(labels, place);
  vec4 paint = texelFetch(colours, ivec2(int(label), 0), 0);
  if (outline > 0.0 && paint.a > 0.0) paint.a = edge(labels, place, label) ? 1.0 : outline > 1.0 ? 0.0 : paint.a;
  shade = mix(shade, paint.rgb, paint.a);
  if (comparing > 0.0) {
    uint there = at(other, place);
    if (there > 0u && edge(other, place, there)) shade = mix(vec3(1.0), texelFetch(colours, ivec2(int(there), 0), 0).rgb, 0.25);
  }
  color = vec4(shade, 1.0);
}`;
