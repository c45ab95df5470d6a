import type { InteractionStatus, InteractionType } from "../generated/schema";

/** What each kind of request asks for, in words. */
export const KINDS: Record<InteractionType, { word: string }> = {
  APPROVAL: { word: "Approval" },
  CLARIFICATION: { word: "Question" },
  FEEDBACK: { word: "Feedback" },
  NOTIFICATION: { word: "Notification" },
};

/** How a request ended, in words that follow its subject. */
export const ENDINGS: Record<InteractionStatus, string> = {
  PENDING: "still waits for others",
  APPROVED: "was approved",
  REJECTED: "was rejected",
  ANSWERED: "was answered",
  ACKNOWLEDGED: "was acknowledged",
  EXPIRED: "has expired",
  CANCELLED: "was withdrawn",
};
