// What flags and verdicts mean, in a reader's words.

const FLAGS = {
  blank: ["Blank", "There is next to nothing on this patch."],
  out_of_focus: ["Out of focus", "The patch is blurred; nuclei cannot be judged."],
  unfamiliar_stain: ["Unfamiliar stain", "Its colours are far from those the model was trained on."],
  wrong_scale: ["Wrong scale", "Its microns per pixel differ from those the model was trained on."],
};

// What kept a part of a slide from being judged, or makes its mask doubtful.
const SLIDE_FLAGS = {
  pen: "pen marks were left out",
  blurred: "much of the tissue is blurred and was left out",
  nearly_everything: "nearly all was taken for tissue",
  nearly_nothing: "hardly any tissue was found",
  no_contrast: "tissue and glass hardly differ",
  too_many_lesions: "too many lesions to list them all",
};

export function slideCautions({ flags, blurred_of_tissue: blurred }) {
  const share = Math.round(100 * (blurred ?? 0));
  const words = flags.filter((flag) => flag !== "blurred" || !share).map((flag) => SLIDE_FLAGS[flag] ?? flag.replaceAll("_", " "));
  return [...words, ...(share ? [`${share} % of the tissue is blurred and was left out`] : [])].join("; ");
}
export const flagName = (flag) => FLAGS[flag]?.[0] ?? flag.replaceAll("_", " ");
export const flagReason = (flag) => FLAGS[flag]?.[1] ?? "The endpoint flagged this patch.";
export const isAbstained = (reply) => reply.abstained ?? (reply.flags ?? []).length > 0;

export function verdictOf(reply) {
  if (isAbstained(reply)) return { kind: "caution", words: "No verdict", sign: "?" };
  return reply.verdict === "tumour"
    ? { kind: "tumour", words: "Tumour", sign: "▲" }
    : { kind: "negative", words: "Negative", sign: "●" };
}

export const pointName = (name) => name.replace(/[-_]/g, " ");
