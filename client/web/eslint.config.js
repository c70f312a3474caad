import tseslint from 'typescript-eslint'

export default tseslint.config(
  { ignores: ['dist/', 'build/', 'node_modules/', '*.mjs', 'eslint.config.js'] },
  ...tseslint.configs.strictTypeChecked,
  {
    languageOptions: { parserOptions: { project: './tsconfig.json', tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/no-non-null-assertion': 'off', // indexes of byte arrays whose bounds were checked
      'max-lines': ['error', 600],
      'no-eval': 'error',
      'no-restricted-properties': [
        'error',
        { property: 'innerHTML', message: 'What nodes say never becomes markup.' },
        { property: 'outerHTML', message: 'What nodes say never becomes markup.' },
        { property: 'insertAdjacentHTML', message: 'What nodes say never becomes markup.' }
      ],
      'no-restricted-imports': ['error', { patterns: [{ group: ['node:*'], message: 'The page has no Node.js.' }] }]
    }
  },
  {
    files: ['src/core/**'],
    rules: {
      'no-restricted-globals': [
        'error',
        ...['window', 'document', 'indexedDB', 'fetch', 'RTCPeerConnection', 'localStorage', 'setTimeout', 'performance'].map(
          name => ({ name, message: 'The core is pure: bytes and times come in, bytes and values go out.' })
        )
      ]
    }
  },
  {
    files: ['test/**'],
    rules: {
      'no-restricted-imports': 'off',
      '@typescript-eslint/no-floating-promises': ['error', { allowForKnownSafeCalls: [{ from: 'package', name: ['test', 'describe', 'it'], package: 'node:test' }] }]
    }
  }
)
