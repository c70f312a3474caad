/** Small drawings. They stand beside words and never in their place, so screen readers pass over them. */
import type { JSX } from 'preact'

function Icon({ children, size = 16 }: { children: JSX.Element | JSX.Element[]; size?: number }) {
  return (
    <svg
      width={size}
      height={size}
      viewBox="0 0 16 16"
      fill="none"
      stroke="currentColor"
      stroke-width="1.6"
      stroke-linecap="round"
      stroke-linejoin="round"
      aria-hidden="true"
      focusable="false"
    >
      {children}
    </svg>
  )
}

export const Mark = () => (
  <Icon size={22}>
    <circle cx="3.4" cy="8" r="2" fill="currentColor" />
    <circle cx="12.6" cy="3.6" r="2" />
    <circle cx="12.6" cy="12.4" r="2" />
    <path d="M5.2 7.1 10.8 4.5M5.2 8.9l5.6 2.6" />
  </Icon>
)
export const SearchIcon = () => (
  <Icon>
    <circle cx="7" cy="7" r="4.6" />
    <path d="m10.6 10.6 3.6 3.6" />
  </Icon>
)
export const WaitIcon = () => (
  <Icon size={14}>
    <circle cx="8" cy="8" r="6" />
    <path d="M8 4.6V8l2.2 1.6" />
  </Icon>
)
export const RunIcon = () => (
  <Icon size={14}>
    <path d="M8 2a6 6 0 1 1-6 6" />
  </Icon>
)
export const AskIcon = () => (
  <Icon size={14}>
    <circle cx="8" cy="8" r="6" />
    <path d="M6.3 6.4a1.8 1.8 0 1 1 2.4 1.7c-.5.2-.7.5-.7 1M8 11.3v.1" />
  </Icon>
)
export const DoneIcon = () => (
  <Icon size={14}>
    <circle cx="8" cy="8" r="6" />
    <path d="m5.4 8.2 1.8 1.8 3.4-3.8" />
  </Icon>
)
export const ErrorIcon = () => (
  <Icon size={14}>
    <path d="M8 2 14.2 13H1.8L8 2Z" />
    <path d="M8 6.4v3M8 11.2v.1" />
  </Icon>
)
export const InfoIcon = () => (
  <Icon>
    <circle cx="8" cy="8" r="6.2" />
    <path d="M8 7.4v3.8M8 4.9V5" />
  </Icon>
)
export const DownIcon = () => (
  <Icon>
    <path d="M8 2.4v7.4M4.8 6.8 8 10l3.2-3.2M2.6 13.4h10.8" />
  </Icon>
)
export const ShareIcon = () => (
  <Icon>
    <path d="M6.6 9.4 9.4 6.6M7 4.6 8.8 2.8a3 3 0 0 1 4.4 4.4L11.4 9M9 11.4l-1.8 1.8a3 3 0 0 1-4.4-4.4L4.6 7" />
  </Icon>
)
export const PlusIcon = () => (
  <Icon size={14}>
    <path d="M8 3v10M3 8h10" />
  </Icon>
)
export const CrossIcon = () => (
  <Icon size={14}>
    <path d="m4 4 8 8M12 4l-8 8" />
  </Icon>
)
